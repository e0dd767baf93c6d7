"""VPTQ, further: from its answer on, coordinate descent over vectors and least-squares codebooks. Ours.

Both steps lower the very objective tr((W - Q) H (W - Q)^T). With all other codes fixed, rows r .. r + v of
column j cost H_jj |q - target|^2 and a constant, where  target = W_j - sum over k != j of (Q_k - W_k) H_kj /
H_jj : the nearest centroid is the best (`methods.vectors.descent`). With all codes fixed the best codebooks
are a least-squares problem (`methods.vectors.refit`). Where neither moves any more, small noise on the
targets opens a way on (`methods.vectors.shake`).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from methods.contracts.bounds import Count, CountOrZero, Factor, Size, Tolerance, check_bounds
from methods.contracts.effort import STILL, one_sweep, product, search
from methods.contracts.problem import LayerProblem, Solution
from methods.contracts.scheme import Scheme
from methods.solving.descent import coupling
from methods.solving.linalg import live_hessian
from methods.vectors.descent import Span, Sweeper
from methods.vectors.frame import Rounding
from methods.vectors.refit import refit, spread, with_stages
from methods.vectors.shake import shake
from methods.vptq import VPTQ

SHAKES_PER_REFIT = 4
REACH = 4.0  # times the largest weight: no centroid has business beyond


@dataclass(frozen=True)
class VPTQFurther:
    """
    Raises:
        ValueError: a field is out of range; the message names it.
    """

    start: VPTQ
    rounds: CountOrZero  # of sweeps and a refit, at most
    sweeps: CountOrZero  # over all columns in a round, at most
    refit_steps: CountOrZero  # of conjugate gradients in a round
    tolerance: Tolerance  # end when a round lowers the error by less than this share of it
    # trials to leave the optimum by noise on the targets (methods.vectors.shake), after the rounds
    shakes: CountOrZero
    # the noise of the first, relative to the errors of each column; it falls linearly to none
    shake_size: Factor
    final_sweeps: CountOrZero  # with the codebooks as they are stored, at most
    beam: Count  # first-stage centroids tried for a vector of two stages
    block_size: Size  # columns between two matrix products; changes no result but rounding noise

    rows_independent: ClassVar[bool] = False

    def __post_init__(self):
        check_bounds(self)

    def skip_reason(self, scheme: Scheme) -> str | None:
        return self.start.skip_reason(scheme)

    def operations(self, rows: int, columns: int, scheme: Scheme) -> float:
        """All rounds and shakes, of `sweeps` sweeps each, and their refits, two products for each step."""
        find = search(rows, columns, self.start.vector_length, 2**self.start.index_bits)
        one = STILL * one_sweep(rows, columns, triangular=False) + find
        sweeps = (self.rounds + self.shakes) * self.sweeps + self.final_sweeps
        refits = self.rounds + self.shakes // SHAKES_PER_REFIT
        steps = refits * self.refit_steps * 2 * product(rows, columns)
        return self.start.operations(rows, columns, scheme) + sweeps * one + steps

    def solve(self, problem: LayerProblem) -> Solution:
        begin = self.start.round(problem)
        better, sweeps, rounds = self._descend(begin)
        # sweeps of the shakes not counted
        stats = {**begin.stats, "sweeps": sweeps, "rounds": rounds, "shakes": self.shakes}
        return Solution(better.weight(), stats, begin.fallbacks)

    def _descend(self, begin: Rounding) -> tuple[Rounding, int, int]:
        """Rounds until one gains little, shakes, sweeps on stored codebooks; (answer, sweeps, rounds)."""
        layer = _Layer.of(begin)
        state, sweeps, rounds = begin, 0, 0
        error = layer.error(state)
        while rounds < self.rounds:
            state, run = self._round(layer, state)
            before, error, sweeps, rounds = error, layer.error(state), sweeps + run, rounds + 1
            if before - error <= self.tolerance * before:
                break
        generator = torch.Generator().manual_seed(self.start.seed)
        for k in range(self.shakes):
            size = self.shake_size * (1 - k / self.shakes)
            shaken = self._sweeper(layer, state), layer.hessian, layer.weight, state.offset, state.codes
            offset, codes = shake(*shaken, size, self.sweeps, generator)
            state = replace(state, offset=offset, codes=codes)
            if k % SHAKES_PER_REFIT == SHAKES_PER_REFIT - 1:
                state = layer.refit(state, self.refit_steps)
        stored = [
            with_stages(span, tuple(begin.frame.storable(stage) for stage in span.book.stages))
            for span in state.spans
        ]
        state, run = self._sweep(layer, layer.with_spans(state, stored), self.final_sweeps)
        return state, sweeps + run, rounds

    def _round(self, layer: "_Layer", state: Rounding) -> tuple[Rounding, int]:
        state, sweeps = self._sweep(layer, state, self.sweeps)
        return layer.refit(state, self.refit_steps), sweeps

    def _sweep(self, layer: "_Layer", state: Rounding, most: int) -> tuple[Rounding, int]:
        sweeper = self._sweeper(layer, state)
        offset, codes, sweeps = sweeper.over_rows(layer.weight, state.offset, state.codes, most)
        return replace(state, offset=offset, codes=codes), sweeps

    def _sweeper(self, layer: "_Layer", state: Rounding) -> Sweeper:
        return Sweeper(layer.feedback, False, state.spans, self.block_size, self.beam)


@dataclass(frozen=True)
class _Layer:
    """What stays as it is while codes and codebooks move."""

    weight: Tensor  # (in, out) of the frame
    hessian: Tensor  # (in, in), dead columns cut off
    feedback: Tensor  # (in, in) of coordinate descent
    row_importance: Tensor  # (out,)

    @classmethod
    def of(cls, begin: Rounding) -> "_Layer":
        hessian = live_hessian(begin.frame.hessian)[0]
        return cls(begin.frame.weight, hessian, coupling(hessian), begin.frame.row_importance)

    def error(self, state: Rounding) -> float:
        errors = (self.hessian @ state.offset) * state.offset * self.row_importance
        return errors.sum(dtype=torch.float64).item()

    def refit(self, state: Rounding, steps: int) -> Rounding:
        """The best codebooks for the codes; those at hand where a noisy Hessian sends centroids far away."""
        spans = refit(self.hessian, self.row_importance, state.offset, state.spans, state.codes, steps)
        furthest = max(stage.abs().max().item() for span in spans for stage in span.book.stages)
        return self.with_spans(state, spans) if furthest <= REACH * self.weight.abs().max().item() else state

    def with_spans(self, state: Rounding, spans: list[Span]) -> Rounding:
        """The same codes under other codebooks."""
        values = spread([span.book.stages for span in spans], state.codes, self.weight.shape[1])
        return replace(state, spans=spans, offset=values - self.weight)
