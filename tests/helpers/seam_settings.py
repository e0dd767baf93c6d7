"""Blocks of every family and of every setting that changes their seams, with what goes into them and what
comes out.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BloomConfig,
    FalconConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen3Config,
)

from harness.models import tiny
from harness.models.families import family_of
from harness.quantization.blocks import ModelBlocks
from methods.contracts.block import Block, Call
from tests.helpers.tiny_models import tokens

OPT = tiny.COMMON | tiny.CONTEXT | {"ffn_dim": 128}
FURTHER = {  # what a config can say beyond the variants of `tiny`
    "llama_biases": lambda: LlamaConfig(**tiny.GATED, attention_bias=True, mlp_bias=True),
    "llama_long_heads": lambda: LlamaConfig(**tiny.GATED, head_dim=24),
    "mistral_one_key": lambda: MistralConfig(**tiny.GATED | {"num_key_value_heads": 1}, sliding_window=None),
    "qwen3_biases": lambda: Qwen3Config(**tiny.GATED, head_dim=16, attention_bias=True),
    "opt_gelu": lambda: OPTConfig(**OPT, activation_function="gelu"),
    "opt_bare": lambda: OPTConfig(**OPT, enable_bias=False, layer_norm_elementwise_affine=False),
    "opt_no_bias": lambda: OPTConfig(**OPT, enable_bias=False),
    "bloom_residual": lambda: BloomConfig(**tiny.COMMON, apply_residual_connection_post_layernorm=True),
    "falcon_per_head": lambda: FalconConfig(**tiny.FALCON, multi_query=False, parallel_attn=True, bias=True),
    "falcon_alibi": lambda: FalconConfig(
        **tiny.FALCON, multi_query=True, parallel_attn=False, alibi=True, activation="relu"
    ),
    "gpt_neox_whole": lambda: GPTNeoXConfig(
        **tiny.NEOX, rotary_pct=1.0, attention_bias=False, hidden_act="relu"
    ),
    "gpt_neox_half": lambda: GPTNeoXConfig(**tiny.NEOX, rotary_pct=0.5),
}
VARIANTS = [*tiny.CONFIGS, *FURTHER]


@dataclass(frozen=True)
class Setting:
    """The first block of a tiny model, what goes into it and what comes out."""

    block: Block
    hidden: Tensor
    call: Call
    output: Tensor

    def copy(self) -> Block:
        return replace(self.block, module=deepcopy(self.block.module))

    @torch.no_grad()
    def distance(self, block: Block) -> float:
        """By how much a block's output differs from the original's, relative to its largest entry."""
        return (
            (block.run(self.hidden, self.call) - self.output).abs().max() / self.output.abs().max()
        ).item()


@cache
def setting(variant: str, dtype: torch.dtype = torch.float32) -> Setting:
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(tiny, "CONFIGS", tiny.CONFIGS | FURTHER)
        model, _ = tiny.tiny_model(variant, dtype=dtype)
        family = family_of(model.config)
        source = ModelBlocks(model, family)
        (entry,) = source.capture(tokens(2, 56), 2)
        block, call = next(iter(source)), entry.calls[0]
        block = replace(block, seams=family.seams(model.config), attention=family.attention(model.config))
        for module in block.module.modules():
            if dtype == torch.float64 and "RMSNorm" in type(module).__name__:
                patch_norm(module)
        return Setting(block, entry.hidden, call, block.run(entry.hidden, call))


def patch_norm(norm: nn.Module) -> None:
    """The families' RMS norms compute in float32, whatever they are given."""
    one_plus, epsilon = "Gemma" in type(norm).__name__, getattr(norm, "variance_epsilon", None) or norm.eps
    norm.forward = RMSNorm.forward.__get__(norm)
    norm.one_plus, norm.epsilon = one_plus, epsilon


class RMSNorm(nn.Module):
    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.epsilon)
        return hidden * (1 + self.weight if self.one_plus else self.weight)
