"""The training loop that OmniQuant and AffineQuant share: factors at seams and clipping of weights, on the
block's output.

Per calibration batch one step: factors under the mask of the epoch, the block's weights rewritten by them and
fake-quantized with their clipped ranges, the block run on (quantized) activations, the mean squared error
against the float model's output, AdamW. Parameters are float32; on a GPU the block itself runs in bfloat16
and its weights are rewritten in TF32. Nothing is drawn at random.

A loss or a matrix that is not finite or not invertible sends the loop back to the state at the beginning of
the epoch, with half the rates.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.blocks.activations import quantized_activations
from methods.blocks.affine import Site
from methods.blocks.fake_quant import fake_quantize
from methods.blocks.functional import float32, run_with
from methods.blocks.rewriting import rewrite, values_of
from methods.contracts.block import Block
from methods.contracts.scheme import Scheme
from methods.contracts.seams import NormSeam, Seam
from methods.contracts.transform import Watch
from methods.contracts.tuning import Sample
from methods.solving.descent import Matmul, products_in

ROLLBACKS = 5  # before training ends where it is


@dataclass(frozen=True)
class Course:
    """How long and how fast.

    Raises:
        ValueError: a field is out of range; the message names it.
    """

    epochs: int  # passes over all samples
    matrix_rate: float  # of factors and shifts
    clip_rate: float  # of the clipping logits
    final_rate: float  # both fall linearly to this share of themselves; 1: constant
    auxiliary_loss: bool  # also against the float block on the same inputs

    def __post_init__(self):
        if self.epochs < 0:
            raise ValueError(f"epochs={self.epochs}: must be at least 0")
        for name in ("matrix_rate", "clip_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be positive")
        if not 0 < self.final_rate <= 1:
            raise ValueError(f"final_rate={self.final_rate}: must be between 0 and 1")


@dataclass
class Learned:
    """Where training ended."""

    leaves: dict[str, Tensor]
    loss_before: float  # on all samples, relative to the mean square of the target
    loss_after: float
    # of each epoch, the mean over its steps, each sample met with the parameters of its step; auxiliary part
    # too
    losses: tuple[float, ...]
    cost: float  # seconds over those of one plain forward-backward of the block per step
    fallbacks: tuple[str, ...]


class Lesson:
    """A block to be trained: its fixed parameters, its sites, its samples. Leaves are named `<site>.<name>`
    and `<linear>.low`, `.high`.
    """

    def __init__(
        self, block: Block, samples: Sequence[Sample], scheme: Scheme, sites: Sequence[Site], stability: float
    ):
        self.block, self.samples, self.scheme, self.sites, self.stability = (
            block,
            samples,
            scheme,
            sites,
            stability,
        )
        self.base = float32(values_of(block))
        self.device = self.base[f"{block.linears[0]}.weight"].device
        targets = sum(sample.target.double().square().sum().item() for sample in samples)
        self.energy = max(
            targets / sum(sample.target.numel() for sample in samples), torch.finfo(torch.float32).tiny
        )

    def site_leaves(self, leaves: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
        prefix = f"{number}."
        return {name.removeprefix(prefix): leaf for name, leaf in leaves.items() if name.startswith(prefix)}

    def values(self, leaves: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """All parameters of the block, its linears rewritten and fake-quantized."""
        values = dict(self.base)
        for number, site in enumerate(self.sites):
            values = rewrite(
                values, site.seam, site.factor(self.site_leaves(leaves, number), share, self.stability)
            )
        for path in self.block.linears:
            low, high = leaves[f"{path}.low"].sigmoid(), leaves[f"{path}.high"].sigmoid()
            values[f"{path}.weight"] = fake_quantize(values[f"{path}.weight"], low, high, self.scheme)
        for site in self.sites:
            self._fold_map_(values, site.seam)
        return values

    def _fold_map_(self, values: dict[str, Tensor], seam: Seam) -> None:
        """Multiply the inverse of a full matrix behind a norm into the rounded weights, if these have fewer
        rows than a batch has tokens:

        (x - shift) A^-1 Q^T = x (Q A^-T)^T - shift (Q A^-T)^T for float activations x: the same output by
        smaller products, and behind the block's first norm no gradient of x is needed.
        """
        if (
            not isinstance(seam, NormSeam)
            or self.scheme.quantizes_activations
            or f"{seam.norm}.inverse" not in values
        ):
            return
        if (
            sum(len(values[f"{path}.weight"]) for path in seam.consumers)
            >= self.samples[0].target[..., 0].numel()
        ):
            return
        inverse, shift = values.pop(f"{seam.norm}.inverse"), values.pop(f"{seam.norm}.shift", None)
        for path in seam.consumers:
            values[f"{path}.weight"] = values[f"{path}.weight"] @ inverse.T
            if shift is not None:
                values[f"{path}.bias"] = values[f"{path}.bias"] - values[f"{path}.weight"] @ shift

    def loss(self, sample: Sample, values: Mapping[str, Tensor], auxiliary: bool = False) -> Tensor:
        """Mean squared error of the output, relative to the mean square of all targets."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            output = run_with(self.block, sample.hidden, sample.call, values).float()
        loss = F.mse_loss(output, sample.target.to(self.device, non_blocking=True).float())
        if auxiliary and sample.own_target is not None:
            loss = loss + F.mse_loss(output, sample.own_target.to(self.device, non_blocking=True).float())
        return loss / self.energy

    @torch.no_grad()
    def mean_loss(self, leaves: Mapping[str, Tensor], share: float) -> float:
        """Over all samples, without the auxiliary part."""
        values = self.values(leaves, share)
        total = sum(self.loss(sample, values).item() * sample.target.numel() for sample in self.samples)
        return total / sum(sample.target.numel() for sample in self.samples)

    def plain_seconds(self) -> float:
        """One forward-backward of the float block on the first batch, gradients of all its parameters."""
        values = {
            name: value.clone().requires_grad_(value.is_floating_point()) for name, value in self.base.items()
        }
        self._wait()
        started = time.perf_counter()
        self.loss(self.samples[0], values).backward()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def train(lesson: Lesson, start: Mapping[str, Tensor], course: Course, watch: Watch) -> Learned:
    """Train from `start`. Ends there if the output of the quantized block comes no closer to its target."""
    plain = [lesson.plain_seconds() for _ in range(2 if course.epochs else 0)]
    with quantized_activations(lesson.block, lesson.scheme), products_in(Matmul.tf32, lesson.device):
        before = lesson.mean_loss(start, 0.0)
    if course.epochs == 0:
        return Learned(dict(start), before, before, (), 0.0, ())
    started, steps = time.perf_counter(), course.epochs * len(lesson.samples)
    with quantized_activations(lesson.block, lesson.scheme), products_in(Matmul.tf32, lesson.device):
        leaves, losses, fallbacks = _descend(lesson, start, course, before, watch)
        seconds = time.perf_counter() - started
        after = _loss_or_nan(lesson, leaves)
    plain += [lesson.plain_seconds() for _ in plain]
    # before and after: a machine may be faster or slower by now
    cost = seconds / (steps * (min(plain[:2]) + min(plain[2:])) / 2)
    if not after < before:
        fallbacks.append(
            f"training brought the block's output no closer ({before:.3g} to {after:.3g}): undone"
        )
        leaves, after = dict(start), before
    return Learned(leaves, before, after, tuple(losses), cost, tuple(fallbacks))


def _descend(
    lesson: Lesson, start: Mapping[str, Tensor], course: Course, before: float, watch: Watch
) -> tuple[dict[str, Tensor], list[float], list[str]]:
    """The leaves at the end, the loss of every epoch that counted, and what went wrong."""
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in start.items()}
    of_clips = [leaf for name, leaf in leaves.items() if name.endswith((".low", ".high"))]
    others = [leaf for name, leaf in leaves.items() if not name.endswith((".low", ".high"))]
    groups = [{"params": others, "rate": course.matrix_rate}, {"params": of_clips, "rate": course.clip_rate}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.0)
    losses, fallbacks, epoch, speed = [], [], 1, 1.0
    while epoch <= course.epochs:
        kept = {name: leaf.detach().clone() for name, leaf in leaves.items()}, _copied(optimizer.state_dict())
        loss = _epoch(lesson, leaves, optimizer, course, epoch, speed, before, watch)
        if loss is not None:
            losses.append(loss)
            epoch += 1
            continue
        with torch.no_grad():
            for name, leaf in leaves.items():
                leaf.copy_(kept[0][name])
        optimizer.load_state_dict(kept[1])
        speed /= 2
        fallbacks.append(
            f"the loss of epoch {epoch} was not finite: went back to its beginning with {speed:g} of the rates"
        )
        if len(fallbacks) > ROLLBACKS:
            break
    return {name: leaf.detach() for name, leaf in leaves.items()}, losses, fallbacks


def _epoch(
    lesson: Lesson,
    leaves: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    course: Course,
    epoch: int,
    speed: float,
    before: float,
    watch: Watch,
) -> float | None:
    """One pass over the samples, under the mask of this epoch: its mean loss, per entry of the targets as in
    `Lesson.mean_loss`.

    None as soon as the loss is not finite or a matrix not invertible.
    """
    total, entries = 0.0, 0
    steps = course.epochs * len(lesson.samples)
    for number, sample in enumerate(lesson.samples):
        step = (epoch - 1) * len(lesson.samples) + number
        for group in optimizer.param_groups:
            group["lr"] = speed * group["rate"] * (1 - (1 - course.final_rate) * step / steps)
        optimizer.zero_grad()
        try:
            loss = lesson.loss(sample, lesson.values(leaves, epoch / course.epochs), course.auxiliary_loss)
        except torch.linalg.LinAlgError:
            return None
        value = loss.item()
        if not math.isfinite(value):
            return None
        total, entries = total + value * sample.target.numel(), entries + sample.target.numel()
        loss.backward()
        optimizer.step()
        for place, site in enumerate(lesson.sites):
            site.keep_invertible_(lesson.site_leaves(leaves, place))
        watch(step + 1, steps, f"epoch {epoch}/{course.epochs} loss {value:.3g} (from {before:.3g})")
    return total / entries if all(bool(leaf.isfinite().all()) for leaf in leaves.values()) else None


def _loss_or_nan(lesson: Lesson, leaves: Mapping[str, Tensor]) -> float:
    try:
        return lesson.mean_loss(leaves, 1.0)
    except torch.linalg.LinAlgError:
        return math.nan


def _copied(state: dict) -> dict:
    """An optimizer's state dict with tensors of its own."""
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_copied(value) for value in state]
    return state.clone() if isinstance(state, Tensor) else state
