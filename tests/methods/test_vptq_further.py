"""What goes on from VPTQ's answer: every step lowers the error, and each finds the best it can."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from methods.solving.descent import coupling
from methods.solving.linalg import layer_error
from methods.vectors.descent import Sweeper
from methods.vectors.frame import Normalize
from methods.vectors.refit import refit, spread
from methods.vectors.shake import shake
from tests.helpers.problems import layer_problem
from tests.methods.test_vptq import FURTHER, OURS, OUTLIERS, PAPER


def test_choices_of_ours_pay():
    errors = {}
    for name, solver in dict(paper=replace(PAPER, permute=True), ours=OURS, further=FURTHER).items():
        problems = [layer_problem(rows=64, seed=seed, bits=3) for seed in range(4)]
        errors[name] = sum(
            layer_error(p.weight, solver.solve(p).weight.dequantize(), p.hessian) for p in problems
        )
    assert errors["further"] < 0.95 * errors["ours"] < 0.95 * errors["paper"]


def rounding(rows=26, bits=3, **fields):
    problem = layer_problem(rows=rows, bits=bits, **OUTLIERS)
    return replace(OURS, column_groups=2, **fields).round(problem), problem


def weighted_error(frame, offset: torch.Tensor) -> float:
    return ((frame.hessian @ offset) * offset * frame.row_importance).sum().item()


def test_every_sweep_and_every_refit_lowers_the_error():
    begin, _ = rounding()
    frame, spans, offset, codes = begin.frame, begin.spans, begin.offset, begin.codes
    errors = [weighted_error(frame, offset)]
    for _ in range(6):
        offset, codes, _ = Sweeper(coupling(frame.hessian), False, spans, 16, 3).over_rows(
            frame.weight, offset, codes, 1
        )
        errors.append(weighted_error(frame, offset))
        spans = refit(frame.hessian, frame.row_importance, offset, spans, codes, 6)
        values = spread([span.book.stages for span in spans], codes, 26)
        offset = values - frame.weight
        errors.append(weighted_error(frame, offset))
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(errors))
    assert errors[-1] < 0.9 * errors[0]


def test_frame_weighs_errors_as_the_layer_does():
    begin, problem = rounding(normalize=Normalize.affine)
    total = layer_error(problem.weight, begin.weight().dequantize(), problem.hessian)
    other = replace(
        begin, codes=[tuple(torch.zeros_like(code) for code in of_span) for of_span in begin.codes]
    )
    zeros = spread([span.book.stages for span in other.spans], other.codes, 26) - begin.frame.weight
    ratio = weighted_error(begin.frame, begin.offset) / weighted_error(begin.frame, zeros)
    assert ratio == pytest.approx(
        total / layer_error(problem.weight, other.weight().dequantize(), problem.hessian)
    )


def test_when_nothing_moves_no_single_vector_can_be_improved():
    begin, _ = rounding(rows=10, bits=2, index_bits=8)
    frame = begin.frame
    offset, _, sweeps = Sweeper(coupling(frame.hessian), False, begin.spans, 16, 1).over_rows(
        frame.weight, begin.offset, begin.codes, 99
    )
    assert sweeps < 99
    settled = weighted_error(frame, offset)
    for span in begin.spans:
        for column in range(span.start, span.stop, 5):
            for start in range(0, 10, span.book.length):
                rows = slice(start, min(start + span.book.length, 10))
                for centroid in span.book.centroids[::7]:
                    other = offset.clone()
                    other[column, rows] = centroid[: rows.stop - rows.start] - frame.weight[column, rows]
                    assert weighted_error(frame, other) >= settled * (1 - 1e-12)


def test_shakes_never_raise_the_error_of_any_block():
    begin, _ = rounding(bits=2)
    frame, offset, codes = begin.frame, begin.offset, begin.codes
    sweeper, generator = (
        Sweeper(coupling(frame.hessian), False, begin.spans, 16, 2),
        torch.Generator().manual_seed(0),
    )
    assert sweeper.unit == 4
    offset, codes, _ = sweeper.over_rows(frame.weight, offset, codes, 50)
    settled = errors = ((frame.hessian @ offset) * offset).sum(0)
    for _ in range(10):
        offset, codes = shake(sweeper, frame.hessian, frame.weight, offset, codes, 0.1, 4, generator)
        values = spread([span.book.stages for span in begin.spans], codes, 26)
        torch.testing.assert_close(offset, values - frame.weight, rtol=0, atol=1e-12)
        now = ((frame.hessian @ offset) * offset).sum(0)
        for start in range(0, 26, 4):
            assert now[start : start + 4].sum() <= errors[start : start + 4].sum() * (1 + 1e-12)
        errors = now
    assert errors.sum() < 0.995 * settled.sum()


def test_refit_is_least_squares():
    begin, _ = rounding(rows=10)
    frame, spans = begin.frame, begin.spans
    design = []  # what each centroid entry adds to the values
    for number, span in enumerate(spans):
        for stage, centroids in enumerate(span.book.stages):
            for entry in range(centroids.numel()):
                units = [tuple(torch.zeros_like(each) for each in other.book.stages) for other in spans]
                units[number][stage].view(-1)[entry] = 1
                design.append(spread(units, begin.codes, 10).reshape(-1))
    root = torch.linalg.cholesky(frame.hessian).T  # errors count as |root @ offset|^2
    columns = torch.stack(design, 1).view(64, 10, -1) * frame.row_importance.sqrt()[:, None]
    weighted = torch.einsum("jk,kre->jre", root, columns).reshape(640, -1)
    target = (root @ (frame.weight * frame.row_importance.sqrt())).reshape(640, 1)
    best = torch.linalg.lstsq(weighted, target, driver="gelsd").solution
    expected = (weighted @ best - target).square().sum().item()
    found = refit(frame.hessian, frame.row_importance, begin.offset, spans, begin.codes, 4000)
    values = spread([span.book.stages for span in found], begin.codes, 10)
    assert weighted_error(frame, values - frame.weight) == pytest.approx(
        expected, rel=1e-6, abs=1e-9 * target.square().sum().item()
    )


def test_refit_leaves_unused_centroids_alone():
    begin, _ = rounding(rows=10)
    found = refit(begin.frame.hessian, begin.frame.row_importance, begin.offset, begin.spans, begin.codes, 5)
    spared = 0
    for old, new, codes in zip(begin.spans, found, begin.codes, strict=True):
        for before, after, code in zip(old.book.stages, new.book.stages, codes, strict=True):
            used = torch.zeros(len(before), dtype=torch.bool).index_fill_(0, code.unique(), True)
            assert torch.equal(before[~used], after[~used])
            spared += int((~used).sum())
    assert spared > 0


@pytest.mark.parametrize(
    "field", ["rounds", "sweeps", "refit_steps", "tolerance", "shakes", "shake_size", "final_sweeps"]
)
def test_bad_fields_of_further_are_named(field):
    with pytest.raises(ValueError, match=f"^{field}=-1"):
        replace(FURTHER, **{field: -1})
