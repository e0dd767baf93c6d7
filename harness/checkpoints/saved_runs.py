"""Rebuild the model that a run left with save=true: `ptq-bench load RUN`, and `load_run` in Python."""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.checkpoints import checkpoint
from harness.checkpoints.linear import QuantizedLinear
from harness.foundation.errors import UserError
from harness.records import layout
from harness.records.lookup import find
from harness.records.store import Store
from methods.blocks.affine_norm import AffineNorm
from methods.weights.bits_per_weight import bits_per_weight


@dataclass(frozen=True)
class LoadedRun:
    """A quantized model as it was saved, and the record of the run that made it (None for a checkpoint away
    from its run).
    """

    directory: Path  # of the checkpoint
    record: dict | None
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def linears(self) -> list[QuantizedLinear]:
        return [module for module in self.model.modules() if isinstance(module, QuantizedLinear)]

    def bits_per_weight(self) -> float:
        """Weighed anew, on the tensors that were read: of the linears, and of matrices behind norms."""
        packed = {
            (k, name): tensor
            for k, linear in enumerate(self.linears())
            for name, tensor in linear.packed.items()
        }
        maps = [module for module in self.model.modules() if isinstance(module, AffineNorm)]
        packed |= {
            (f"map {k}", name): tensor
            for k, module in enumerate(maps)
            for name, tensor in module.stored().items()
        }
        return bits_per_weight(packed, sum(linear.weight.numel() for linear in self.linears()))

    def bytes_on_disk(self) -> int:
        return sum(path.stat().st_size for path in self.directory.rglob("*") if path.is_file())


def load_run(run: str | Path, results: str | Path = "results", device: str = "cpu") -> LoadedRun:
    """The model of a run, same logits bit for bit as when it was saved.

    Args:
        run: a run key, the beginning of one, the directory of a run, or the directory of a checkpoint.
        results: where runs are looked for, at any depth.

    Raises:
        UserError: no such run, more than one, no checkpoint in it, or a damaged one.
    """
    directory = find(run, Path(results))
    if (directory / layout.CHECKPOINT).is_dir():
        place = directory / layout.CHECKPOINT
    elif (directory / checkpoint.MANIFEST).is_file():
        place = directory
    else:
        raise UserError(f"{directory}: {_why_nothing_to_load(directory)}")
    owner = place.parent if place.name == layout.CHECKPOINT else None
    model, tokenizer = checkpoint.load(place, device)
    return LoadedRun(place, owner and Store(layout.results_of(owner)).record(owner.name), model, tokenizer)


def _why_nothing_to_load(directory: Path) -> str:
    record = Store(layout.results_of(directory)).record(directory.name)
    if record is None:
        return "no run ended here, and it is no checkpoint"
    if record["status"] != "done":
        return f"the run ended as {record['status']}: {record['reason']}"
    if record["method"]["solver"] is None:
        return f"the run of the float model; load {record['model']['id']} itself"
    return "the run kept no checkpoint; run the same point again with save=true"
