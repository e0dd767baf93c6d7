"""One block of a random model of a known shape, and hidden states with a few large channels: what a transform
can be measured on anywhere.

Times and memory are those of a real block of that shape, losses are not.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig, PreTrainedConfig

from harness.foundation.errors import UserError
from harness.models.families import family_of
from harness.models.tiny import GATED
from harness.quantization.blocks import ModelBlocks
from methods.contracts.block import Block, Call
from methods.contracts.tuning import Sample

ONE = {"num_hidden_layers": 1, "vocab_size": 288, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
LARGE = {"hidden_size": 4096, "num_attention_heads": 32}
LARGE_CHANNELS, LARGE_FACTOR = 0.01, 20.0  # of the hidden states: which share of them, how much larger


@dataclass(frozen=True)
class Shape:
    """A model of which one block is built."""

    blocks: int  # of the whole model
    kind: type[PreTrainedConfig]
    sizes: Mapping[str, int]

    def config(self, window: int) -> PreTrainedConfig:
        return self.kind(**self.sizes | ONE | {"max_position_embeddings": window})

    @property
    def widths(self) -> tuple[int, int]:
        """Of the hidden states and inside the MLP: what linears read."""
        config = self.config(1)
        return config.hidden_size, config.ffn_dim if self.kind is OPTConfig else config.intermediate_size


SHAPES = {
    "llama-7b": Shape(32, LlamaConfig, LARGE | {"intermediate_size": 11008}),
    "opt-6.7b": Shape(32, OPTConfig, LARGE | {"ffn_dim": 16384, "word_embed_proj_dim": 4096}),
    "smollm2": Shape(30, LlamaConfig, SMOLLM2),
    "tiny": Shape(3, LlamaConfig, GATED),
}


def check_groups(shape: str, scheme: str, size: int | None) -> None:
    """
    Raises:
        UserError: groups of this size do not divide the width of a linear.
    """
    for width in SHAPES[shape].widths:
        if size and width % size:
            raise UserError(
                f"--scheme {scheme}: its groups of {size} do not divide the width {width} of {shape}; "
                "try w3a16"
            )


@torch.no_grad()
def random_lesson(
    shape: str, samples: int, tokens: int, batch_size: int, device: str
) -> tuple[Block, list[Sample]]:
    """A random block on the device, bfloat16 on a GPU, and samples of it that are normal but for a few large
    channels.
    """
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(), torch.device(device):
        model = (
            AutoModelForCausalLM.from_config(SHAPES[shape].config(tokens), dtype=dtype)
            .eval()
            .requires_grad_(False)
        )
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator).to(device)
        # as in harness.models.tiny: norms around 1, biases around 0, matrices that keep the size of what
        # flows through
        parameter.copy_(
            parameter + 0.1 * noise if parameter.ndim == 1 else noise / math.sqrt(parameter[0].numel())
        )
    source = ModelBlocks(model, family_of(model.config))
    block = next(iter(source))
    (entry,) = source.capture(torch.ones(batch_size, tokens, dtype=torch.long, device=device), batch_size)
    width = entry.hidden.shape[-1]
    sizes = torch.ones(width, device=device)
    sizes[torch.randperm(width, generator=generator)[: math.ceil(LARGE_CHANNELS * width)]] = LARGE_FACTOR

    def sample(call: Call) -> Sample:
        noise: Tensor = torch.randn(entry.hidden.shape, generator=generator).to(device)
        hidden = (noise * sizes).to(dtype)
        return Sample(hidden, call, block.run(hidden, call))

    return block, [sample(entry.calls[0]) for _ in range(samples // batch_size)]
