"""Layer-wise fine-tuning of centroids: after a block's linears are rounded, its real numbers are trained on
the block's output.

Liu, Wen, Wang, Ye, Zhang, Cao, Li, Yang: VPTQ: Extreme Low-bit Vector Post-Training Quantization for Large
Language Models, EMNLP 2024, arXiv 2409.17066, appendix with Table 9: centroids and norm layers alone, the
mean squared error against the output of the float block, 100 steps. The paper names no optimiser; here it is
Adam with a rate that falls linearly to 0. Its rate of 1e-4 is, for weights of the size of LLaMA-2-7B's
(0.02), 5e-3 of their root mean square.

The codes stay, so the bits stay. The answer is judged as it will be stored, on all samples, and dropped if
the output came no closer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.blocks.functional import float32, run_with, values_of
from methods.contracts.block import Block
from methods.contracts.bounds import Count, Rate, Seed, check_bounds
from methods.contracts.effort import BlockEffort, training
from methods.contracts.quantized_weight import QuantizedWeight
from methods.contracts.tuning import Sample, TunableWeight, Tuned


@dataclass(frozen=True)
class CentroidTuning:
    """
    Raises:
        ValueError: a field is out of range; the message names it.
    """

    steps: Count  # of Adam
    # of centroids at the first step, relative to the root mean square of a layer's centroids
    learning_rate: Rate
    norm_learning_rate: Rate | None  # of the block's norm layers, as it is; None: they stay
    batches_per_step: Count  # calibration batches whose gradients one step adds up
    seed: Seed  # of the order of the batches

    def __post_init__(self):
        check_bounds(self)

    def operations(self, block: BlockEffort) -> float:
        """The steps, each of some batches, and the error before and after them."""
        return (
            training(block, self.steps * min(1.0, self.batches_per_step / block.batches)) + 2 * block.forward
        )

    def tune(self, block: Block, samples: Sequence[Sample], weights: Mapping[str, QuantizedWeight]) -> Tuned:
        state = BlockState.of(block, weights, self.norm_learning_rate is not None)
        start = state.start()
        before = output_error(block, samples, state.values(start))
        if not start or before == 0:
            return Tuned({}, {}, before, before, ("tuning found nothing to train",) if not start else ())
        trained = self._train(block, samples, state, start, before)
        stored = state.stored(trained)
        after = output_error(block, samples, state.values(stored.start()))
        if not after < before:
            return Tuned(
                {},
                {},
                before,
                before,
                (f"tuning brought the block's output no closer ({before:.3g} to {after:.3g}): undone",),
            )
        tunable = {
            path: weight for path, weight in stored.weights.items() if isinstance(weight, TunableWeight)
        }
        return Tuned(tunable, {name: stored.parameters[name] for name in stored.norms}, before, after)

    def _train(
        self,
        block: Block,
        samples: Sequence[Sample],
        state: "BlockState",
        start: dict[str, Tensor],
        before: float,
    ) -> dict[str, Tensor]:
        """Adam on tensors scaled so that one rate fits the centroids of every layer: an Adam step is as large
        as its rate.
        """
        sizes = {name: self._size(value, name in state.norms) for name, value in start.items()}
        leaves = {name: (value / sizes[name]).requires_grad_() for name, value in start.items()}
        optimizer = torch.optim.Adam(leaves.values(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / self.steps, total_iters=self.steps)
        draw = shuffled(len(samples), self.seed)
        for _ in range(self.steps):
            optimizer.zero_grad()
            for number in (next(draw) for _ in range(min(self.batches_per_step, len(samples)))):
                with torch.enable_grad():
                    values = state.values({name: leaf * sizes[name] for name, leaf in leaves.items()})
                    # relative: Adam's epsilon is absolute
                    loss = squared_error(block, samples[number], values).mean() / before
                loss.backward()
            optimizer.step()
            schedule.step()
        return {name: leaf.detach() * sizes[name] for name, leaf in leaves.items()}

    def _size(self, value: Tensor, norm: bool) -> float:
        """What a trained tensor is divided by. A norm's own size says nothing: some families keep them around
        1, others around 0.
        """
        if norm:
            return self.norm_learning_rate / self.learning_rate
        return max(value.square().mean().sqrt().item(), torch.finfo(value.dtype).tiny)


@dataclass(frozen=True)
class BlockState:
    """What a block computes with: its rounded weights, and all its other parameters and buffers."""

    weights: Mapping[str, QuantizedWeight]
    parameters: Mapping[str, Tensor]  # all others and all buffers, by name in the block, in its dtype
    norms: tuple[str, ...]  # which of them are trained

    @classmethod
    def of(cls, block: Block, weights: Mapping[str, QuantizedWeight], norms: bool) -> "BlockState":
        """Norm parameters are told by their form: vectors that belong to no linear."""
        replaced = {f"{path}.weight" for path in weights}
        others = {name: value for name, value in values_of(block).items() if name not in replaced}
        learned = {name for name, _ in block.module.named_parameters() if name not in replaced}
        vectors = (
            name
            for name in others
            if name in learned and others[name].ndim == 1 and name.rpartition(".")[0] not in block.linears
        )
        return cls(dict(weights), others, tuple(vectors) if norms else ())

    def start(self) -> dict[str, Tensor]:
        """What is trained, at its present values, float32: `path:name` of a centroid tensor, or the name of a
        parameter.
        """
        tunable = {path: weight for path, weight in self.weights.items() if isinstance(weight, TunableWeight)}
        numbers = {
            f"{path}:{name}": float32(value)
            for path, weight in tunable.items()
            for name, value in weight.trainable().items()
        }
        return numbers | {name: float32(self.parameters[name]) for name in self.norms}

    def values(self, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All parameters and buffers of the block for these trained values."""
        decoded = {}
        for path, weight in self.weights.items():
            own = {
                name.rpartition(":")[2]: value
                for name, value in trained.items()
                if name.rpartition(":")[0] == path
            }
            decoded[f"{path}.weight"] = weight.decode(own) if own else float32(weight.dequantize())
        return float32(dict(self.parameters)) | decoded | {name: trained[name] for name in self.norms}

    def stored(self, trained: Mapping[str, Tensor]) -> "BlockState":
        """The state whose weights and norms hold these values, rounded to what is stored."""
        weights = {}
        for path, weight in self.weights.items():
            own = {
                name.rpartition(":")[2]: value
                for name, value in trained.items()
                if name.rpartition(":")[0] == path
            }
            weights[path] = weight.with_trained(own) if own else weight
        norms = {name: trained[name].to(self.parameters[name].dtype) for name in self.norms}
        return BlockState(weights, dict(self.parameters) | norms, self.norms)


def squared_error(block: Block, sample: Sample, values: Mapping[str, Tensor]) -> Tensor:
    """(batch, tokens, width) float32, of the block with these parameters and buffers in place of its own."""
    output = run_with(block, sample.hidden, sample.call, values)
    return (output - float32(sample.target.to(output.device, non_blocking=True))).square()


@torch.no_grad()
def output_error(block: Block, samples: Sequence[Sample], values: Mapping[str, Tensor]) -> float:
    """Mean squared error of the block's output over all samples."""
    total = sum(squared_error(block, sample, values).sum(dtype=torch.float64).item() for sample in samples)
    return total / sum(sample.target.numel() for sample in samples)


def shuffled(count: int, seed: int) -> Iterator[int]:
    """0 to count - 1 in random order, again and again."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator).tolist()
