"""The shapes of a model that cost something, read off its config.json."""

import json
from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import PreTrainedConfig

from harness.config.groups import ModelConfig
from harness.foundation.errors import UserError
from harness.models import tiny
from harness.models.families import check_coverage, family_of, skeleton
from harness.models.reading import _architecture, _tiny_name, read_architecture
from harness.models.sources import TINY, locate
from methods.contracts.seams import Seam

Shape = tuple[int, int]  # (out, in)


@dataclass(frozen=True)
class Architecture:
    """A decoder as a row of equal blocks."""

    # the linears of a block along the data flow; those in one inner tuple read the same input
    groups: tuple[tuple[Shape, ...], ...]
    seams: tuple[Seam, ...]  # of a block
    blocks: int
    width: int  # of the hidden states
    heads: int  # of the queries
    vocabulary: int
    parameters: int  # tied ones once
    context: int | None  # tokens; None: no limit

    @property
    def linears(self) -> tuple[Shape, ...]:
        """Those of one block."""
        return tuple(shape for group in self.groups for shape in group)

    @property
    def block_weights(self) -> int:
        return sum(rows * columns for rows, columns in self.linears)

    @property
    def quantizable(self) -> int:
        return self.blocks * self.block_weights

    @property
    def hessian_bytes(self) -> int:
        """Of the float32 Hessians of one block."""
        return sum(4 * group[0][1] ** 2 for group in self.groups)


@lru_cache(maxsize=16)
def architecture_of(config: ModelConfig) -> Architecture:
    """
    Raises:
        UserError: the model is not there, or not supported.
    """
    tiny_name = config.id.removeprefix(TINY)
    found = (
        tiny.tiny_config(tiny_name)
        if tiny_name != config.id
        else read_architecture(locate(config, weights=False))
    )
    family, model = family_of(found), skeleton(found, torch.float32)
    first, text = family.block_list(model)[0], found.get_text_config()
    groups = tuple(
        tuple(tuple(first.get_submodule(path).weight.shape) for path in group)
        for group in family.groups(found)
    )
    return Architecture(
        groups=groups,
        seams=family.seams(found),
        blocks=len(family.block_list(model)),
        width=text.hidden_size,
        heads=text.num_attention_heads,
        vocabulary=text.vocab_size,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        context=getattr(text, "max_position_embeddings", None),
    )


@dataclass(frozen=True)
class ModelShape:
    """What config.json alone tells about a model."""

    family: str
    linears: dict[str, tuple[int, int]]  # full path -> (out, in), of every linear that would be quantized
    blocks: int
    context_length: int | None  # tokens; None where the architecture sets no limit
    vocab_size: int
    parameters: int  # tied ones once
    quantizable: int  # parameters in the linears
    seams: tuple[Seam, ...]  # of every block
    quantizable_activations: bool  # is it known where queries, keys and values are multiplied?


def inspect(config: ModelConfig) -> ModelShape:
    """The shapes of a model from its config.json, without weights.

    Raises:
        UserError: the id names nothing, the config is unsafe, or the architecture is not supported.
    """
    if config.id.startswith(TINY):
        return shape_of(tiny.tiny_config(_tiny_name(config)))
    return shape_of(_architecture(locate(config, weights=False)))


def shape_of(architecture: PreTrainedConfig) -> ModelShape:
    return _shape(type(architecture), architecture.to_json_string(use_diff=False))


@lru_cache(maxsize=16)  # a sweep asks again for every point
def _shape(kind: type[PreTrainedConfig], content: str) -> ModelShape:
    architecture = kind.from_dict(json.loads(content))
    family = family_of(architecture)
    model = skeleton(architecture, torch.float32)
    check_coverage(model, family, architecture)
    paths = [path for group in family.groups(architecture) for path in group]
    blocks = family.block_list(model)
    if not len(blocks):
        raise UserError(
            f"model_type {architecture.model_type!r}: config.json asks for no blocks; fetch the file again"
        )
    weights = {
        f"{family.blocks}.{i}.{path}": block.get_submodule(path).weight
        for i, block in enumerate(blocks)
        for path in paths
    }
    text = architecture.get_text_config()
    return ModelShape(
        family=family.name,
        linears={path: tuple(weight.shape) for path, weight in weights.items()},
        blocks=len(blocks),
        context_length=getattr(text, "max_position_embeddings", None),
        vocab_size=text.vocab_size,
        parameters=sum(p.numel() for p in model.parameters()),
        quantizable=sum(weight.numel() for weight in weights.values()),
        seams=family.seams(architecture),
        quantizable_activations=family.attention(architecture) is not None,
    )
