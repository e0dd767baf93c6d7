"""The shapes of a model, read off its config.json."""

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from harness.config.groups import ModelConfig
from harness.foundation.errors import UserError
from harness.models import tiny
from harness.models.families import check_coverage, family_of, skeleton
from harness.models.reading import CHECKED, read_architecture
from harness.models.sources import source_of
from methods.contracts.seams import Seam

Shape = tuple[int, int]  # (out, in)


@dataclass(frozen=True)
class ModelShape:
    """What config.json alone tells about a model: a decoder as a row of equal blocks."""

    family: str
    # the linears of a block along the data flow; those in one inner tuple read the same input
    groups: tuple[tuple[Shape, ...], ...]
    paths: dict[str, Shape]  # of every linear that would be quantized, in the whole model
    seams: tuple[Seam, ...]  # of a block
    blocks: int
    width: int  # of the hidden states
    vocabulary: int
    parameters: int  # tied ones once
    context: int | None  # tokens; None where the architecture sets no limit
    quantizable_activations: bool  # is it known where queries, keys and values are multiplied?

    @property
    def linears(self) -> tuple[Shape, ...]:
        """Those of one block."""
        return tuple(shape for group in self.groups for shape in group)

    @property
    def block_weights(self) -> int:
        return sum(rows * columns for rows, columns in self.linears)

    @property
    def quantizable(self) -> int:
        """Parameters in the linears of all blocks."""
        return self.blocks * self.block_weights

    @property
    def hessian_bytes(self) -> int:
        """Of the float32 Hessians of one block."""
        return sum(4 * group[0][1] ** 2 for group in self.groups)


def inspect(config: ModelConfig) -> ModelShape:
    """The shapes of a model from its config.json, without weights.

    Raises:
        UserError: the id names nothing, the config is unsafe, or the architecture is not supported.
    """
    source = source_of(config)
    if source.kind == "tiny":
        return _shape(source.name)
    directory = source.directory(weights=False)
    return _shape(directory, *(_stamp(directory / name) for name in CHECKED))


def _stamp(file: Path) -> tuple[int, int] | None:
    """Changes when the file does; None where there is none."""
    with suppress(OSError):
        return file.stat().st_mtime_ns, file.stat().st_size


@lru_cache(maxsize=16)  # a sweep asks again for every point
def _shape(model: str | Path, *stamps: tuple[int, int] | None) -> ModelShape:
    """
    Args:
        model: the name of a tiny model, or a directory.
    """
    architecture = read_architecture(model) if isinstance(model, Path) else tiny.tiny_config(model)
    family = family_of(architecture)
    model = skeleton(architecture, torch.float32)
    check_coverage(model, family, architecture)
    blocks, groups = family.block_list(model), family.groups(architecture)
    if not len(blocks):
        raise UserError(
            f"model_type {architecture.model_type!r}: config.json asks for no blocks; fetch the file again"
        )
    paths = {
        f"{family.blocks}.{index}.{path}": tuple(block.get_submodule(path).weight.shape)
        for index, block in enumerate(blocks)
        for group in groups
        for path in group
    }
    text = architecture.get_text_config()
    return ModelShape(
        family=family.name,
        groups=tuple(tuple(paths[f"{family.blocks}.0.{path}"] for path in group) for group in groups),
        paths=paths,
        seams=family.seams(architecture),
        blocks=len(blocks),
        width=text.hidden_size,
        vocabulary=text.vocab_size,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        context=getattr(text, "max_position_embeddings", None),
        quantizable_activations=family.attention(architecture) is not None,
    )
