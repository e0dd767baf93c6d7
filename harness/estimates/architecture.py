"""The shapes of a model that cost something, read off its config.json."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from harness import tiny
from harness.config.groups import ModelConfig
from harness.families import family_of, skeleton
from harness.model_files import locate
from harness.models import TINY, read_architecture
from methods.core.seams import Seam

Shape = tuple[int, int]  # (out, in)


@dataclass(frozen=True)
class Architecture:
    """A decoder as a row of equal blocks."""

    groups: tuple[tuple[Shape, ...], ...]  # the linears of a block along the data flow; those in one inner tuple read the same input
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
    found = tiny.tiny_config(tiny_name) if tiny_name != config.id else read_architecture(locate(config, weights=False))
    family, model = family_of(found), skeleton(found, torch.float32)
    first, text = family.block_list(model)[0], found.get_text_config()
    groups = tuple(tuple(tuple(first.get_submodule(path).weight.shape) for path in group) for group in family.groups(found))
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
