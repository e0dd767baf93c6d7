"""The loop that trains what OmniQuant and AffineQuant learn: factors at seams, and clipping of weights.

Per calibration batch one step: factors under the mask of the epoch, the block's weights rewritten by them and
fake-quantized with their clipped ranges, the block run on (quantized) activations, the mean squared error
against the float model's output, AdamW. Parameters are float32; on a GPU the block itself runs in bfloat16
and its weights are rewritten in TF32. Nothing is drawn at random.

A loss or a matrix that is not finite or not invertible sends the loop back to the state at the beginning of
the epoch, with half the rates.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from methods.blocks.activations import quantized_activations
from methods.blocks.training.lesson import Lesson
from methods.blocks.training.masked_factors import DIAGONAL, WHOLE, mask_schedule
from methods.contracts.bounds import Rate, Within, check_bounds
from methods.contracts.transform import Watch
from methods.solving.descent import Matmul, products_in

Epochs = Annotated[int, Within(0, 10_000)]
FinalRate = Annotated[float, Within(0, 1, above=True)]
ROLLBACKS = 5  # before training ends where it is


@dataclass(frozen=True)
class Course:
    """How long and how fast.

    Raises:
        ValueError: a field is out of range; the message names it.
    """

    epochs: Epochs  # passes over all samples
    matrix_rate: Rate  # of factors and shifts
    clip_rate: Rate  # of the clipping logits
    final_rate: FinalRate  # both fall linearly to this share of themselves; 1: constant
    auxiliary_loss: bool  # also against the float block on the same inputs

    def __post_init__(self):
        check_bounds(self)


@dataclass
class Learned:
    """Where training ended."""

    leaves: dict[str, Tensor]
    loss_before: float  # on all samples, relative to the mean square of the target
    loss_after: float
    # of each epoch: the mean over its steps, with the parameters of each step and the auxiliary part
    losses: tuple[float, ...]
    cost: float  # seconds over those of one plain forward-backward of the block per step
    fallbacks: tuple[str, ...]


def train(lesson: Lesson, start: Mapping[str, Tensor], course: Course, watch: Watch) -> Learned:
    """Train from `start`. Ends there if the output of the quantized block comes no closer to its target."""
    plain = [lesson.plain_seconds() for _ in range(2 if course.epochs else 0)]
    with quantized_activations(lesson.block, lesson.scheme), products_in(Matmul.tf32, lesson.device):
        before = lesson.mean_loss(start, DIAGONAL)
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
        what = f"no closer ({before:.3g} to {after:.3g})"
        fallbacks.append(f"training brought the block's output {what}: undone")
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
        what = f"the loss of epoch {epoch} was not finite"
        fallbacks.append(f"{what}: went back to its beginning with {speed:g} of the rates")
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
    """One pass over the samples, under the mask of this epoch: its mean loss, per entry of the targets.

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
            values = lesson.values(leaves, mask_schedule(epoch, course.epochs))
            loss = lesson.loss(sample, values, course.auxiliary_loss)
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
        return lesson.mean_loss(leaves, WHOLE)
    except torch.linalg.LinAlgError:
        return math.nan


def _copied(state: dict) -> dict:
    """An optimizer's state dict with tensors of its own."""
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_copied(value) for value in state]
    return state.clone() if isinstance(state, Tensor) else state
