"""Peak memory of a run: what is alive at once in its two hungriest stages.

On a CPU the float weights stay mapped to the end although rounded ones have taken their place; on a GPU they
are freed. Constants were fitted to `peak_memory_bytes` of runs of SmolLM2-135M and of its first six blocks.
"""

from dataclasses import dataclass

import torch

from harness.config.groups import DataConfig, EvalConfig
from harness.config.run_config import RunConfig
from harness.evaluation.perplexity import LOGITS_AT_ONCE, LOSS_TOKENS
from harness.models.shape import ModelShape
from harness.planning.operations import needs_of

MIB = 2**20
# of the host: Python, torch and transformers; the second is a guess
PROCESS = {"cpu": 440 * MIB, "cuda": 3000 * MIB}
KERNELS = 110 * MIB  # compiled for a solver
SWEEP = 230 * MIB  # what the process of the sweep holds besides, where points run in it (isolate=false)
FACTOR_COPIES = 3  # float64 matrices as large as a Hessian while it is factored
ENTRY_COPIES = 10  # float32 matrices as large as the weight while it is rounded
CANDIDATE_ARRAYS, CANDIDATES = 4, 80  # of the search for ranges: scales and zeros of all candidates
TRAINED_COPIES = 8  # of a block's weights while gradients flow through their rounding
REWRITTEN_COPIES = 3  # while a transform tries what it does without gradients
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Memory:
    """Peak bytes."""

    cpu: int
    gpu: int  # 0 where none is used

    @property
    def largest(self) -> int:
        """Of the device that computes."""
        return self.gpu or self.cpu


def peak_memory(config: RunConfig, model: ModelShape, device: str) -> Memory:
    """
    Args:
        device: cpu or cuda.
    """
    size = bytes_per_number(config)
    weights, rounded = model.parameters * size, model.quantizable * size
    evaluating = evaluation_bytes(config.eval, model, size)
    if config.method.solver is None:
        working, packed, mapped = evaluating, 0, 0
    else:
        working = max(evaluating, quantizing_bytes(config, model, size))
        packed = model.quantizable * config.scheme.bits // 8
        mapped = rounded if device == "cpu" else 0
    on_host = (
        PROCESS[device]
        + packed
        + (0 if config.method.solver is None else KERNELS)
        + (0 if config.isolate else SWEEP)
    )
    if device == "cpu":
        return Memory(cpu=int(on_host + weights + mapped + working), gpu=0)
    return Memory(cpu=int(on_host + weights), gpu=int(weights + working))  # weights pass through the host


def bytes_per_number(config: RunConfig) -> int:
    return getattr(torch, config.model.dtype.value).itemsize


def evaluation_bytes(config: EvalConfig, model: ModelShape, size: int) -> int:
    """Logits of two batches (the last one's while the next one's come), and the loss of some tokens in
    float32.
    """
    of_window = config.window * model.vocabulary
    rows = min(config.batch_size, max(1, LOGITS_AT_ONCE // of_window))
    counts = [config.windows_of(corpus) for corpus in config.corpora]
    most = None if None in counts else max(counts, default=None)
    batches = min(2, -(-most // rows)) if most else 2
    rows = min(rows, most or rows)
    logits = batches * rows * of_window * size if config.corpora else LOGITS_AT_ONCE * size
    return (
        logits + 3 * LOSS_TOKENS * model.vocabulary * FLOAT + activations(rows * config.window, model, size)
    )


def activations(tokens: int, model: ModelShape, size: int) -> int:
    """What is alive inside a block: what its widest linears read and write."""
    widest = max(rows + columns for rows, columns in model.linears)
    return tokens * size * (4 * model.width + 2 * widest)


def streams(data: DataConfig, model: ModelShape, size: int, copies: int) -> int:
    """Hidden states of all calibration tokens, so many times."""
    return copies * data.samples * data.window * model.width * size


def stream_copies(config: RunConfig) -> int:
    """Inputs and outputs of a block; those of the float model where these are carried along or aimed at."""
    needs = needs_of(config)
    return 4 if needs.watched else 2 + needs.tuned


def quantizing_bytes(config: RunConfig, model: ModelShape, size: int) -> int:
    """Hidden states, Hessians of a block, and what works on it: a forward pass, a solver, or a training."""
    data, batch = config.data, config.data.batch_size * config.data.window
    rounding = max(solver_bytes(rows, columns, config.scheme.group_size) for rows, columns in model.linears)
    forward = activations(batch, model, size) + FLOAT * batch * max(columns for _, columns in model.linears)
    working = max(rounding, forward)
    parts = [part for part in (config.method.transform, config.method.tuning) if part is not None]
    if any(getattr(part, "trains", True) for part in parts):
        working = max(working, training_bytes(config, model))
    elif parts:
        working = max(working, forward + REWRITTEN_COPIES * FLOAT * model.block_weights)
    return streams(data, model, size, stream_copies(config)) + model.hessian_bytes + working


def solver_bytes(rows: int, columns: int, group_size: int | None) -> int:
    """Copies of the Hessian and of the weight, or all candidates of the search for ranges."""
    grids = rows * columns // (group_size or columns)
    searching = CANDIDATE_ARRAYS * CANDIDATES * FLOAT * grids
    return FACTOR_COPIES * 2 * FLOAT * columns**2 + max(
        ENTRY_COPIES * FLOAT * rows * columns, searching + 2 * FLOAT * rows * columns
    )


def training_bytes(config: RunConfig, model: ModelShape) -> int:
    """Weights of a block under gradients, and what its linears read and write for one batch, kept for the
    backward pass.
    """
    tokens = config.data.batch_size * config.data.window
    kept = sum(rows + columns for rows, columns in model.linears) + 8 * model.width
    copies = 3 if config.scheme.quantizes_activations else 2
    return FLOAT * (TRAINED_COPIES * model.block_weights + copies * tokens * kept)
