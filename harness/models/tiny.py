"""Tiny random models of every family, with a byte-level tokenizer: for tests of the machinery, without any
download.
"""

import hashlib
import json
import math
from collections.abc import Callable
from functools import lru_cache

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma3Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from harness.foundation.errors import UserError

SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}  # ids 0, 1, 2; the 256 bytes follow
COMMON = {
    "vocab_size": 288,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONTEXT = {"max_position_embeddings": 512}
GATED = COMMON | CONTEXT | {"num_key_value_heads": 2, "intermediate_size": 128}
FALCON = COMMON | CONTEXT | {"ffn_hidden_size": 128}
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
GEMMA = GATED | {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 32, "layer_types": SLIDING}
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 28,
}
NEOX = COMMON | CONTEXT | {"intermediate_size": 128}

CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**GATED),
    "mistral": lambda: MistralConfig(**GATED, sliding_window=48),
    "qwen2": lambda: Qwen2Config(**GATED, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**GATED, head_dim=16),
    "gemma3": lambda: Gemma3TextConfig(**GEMMA),
    "gemma3_vision": lambda: Gemma3Config(text_config=GEMMA, vision_config=VISION, mm_tokens_per_image=4),
    "opt": lambda: OPTConfig(**COMMON, **CONTEXT, ffn_dim=128),
    "opt_post_norm": lambda: OPTConfig(
        **COMMON, **CONTEXT, ffn_dim=128, do_layer_norm_before=False, word_embed_proj_dim=32
    ),
    "bloom": lambda: BloomConfig(**COMMON),
    "falcon_old": lambda: FalconConfig(**FALCON, multi_query=True, parallel_attn=True),  # as the 7B
    "falcon_new": lambda: FalconConfig(**FALCON, new_decoder_architecture=True, num_kv_heads=2),  # 40B
    # 11B
    "falcon_one_norm": lambda: FalconConfig(
        **FALCON, new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1
    ),
    # RW-1B
    "falcon_sequential": lambda: FalconConfig(
        **FALCON, multi_query=False, parallel_attn=False, alibi=True, bias=True
    ),
    "gpt_neox": lambda: GPTNeoXConfig(**NEOX),
    "gpt_neox_sequential": lambda: GPTNeoXConfig(**NEOX, use_parallel_residual=False),
}


def tiny_config(name: str) -> PreTrainedConfig:
    """The config of one of `CONFIGS`.

    Raises:
        UserError: there is none of this name.
    """
    if name not in CONFIGS:
        known = ", ".join(f"tiny:{known}" for known in CONFIGS)
        raise UserError(f"model.id=tiny:{name}: unknown; choose among {known}")
    return CONFIGS[name]()


def tiny_model(
    name: str, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A random model of one of `CONFIGS`, and its tokenizer. The same seed gives the same weights, and no
    global state moves.
    """
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(tiny_config(name), dtype=dtype)
    model.config.name_or_path = f"tiny:{name}"
    generator = torch.Generator().manual_seed(seed)
    for path, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:  # around what the architecture starts with: norms of 1 (or 0), biases of 0
            noise = parameter.data + 0.1 * noise
        elif isinstance(model.get_submodule(path.rpartition(".")[0]), nn.Embedding):
            noise *= 0.25
        else:
            noise /= math.sqrt(parameter[0].numel())  # keeps the size of what flows through
        parameter.data.copy_(noise)
    return model.eval().requires_grad_(False), byte_tokenizer()


@lru_cache
def tiny_fingerprint(name: str, seed: int = 0) -> str:
    """`sha256:<hex>` of the weights, the config and the tokenizer."""
    model, tokenizer = tiny_model(name, seed)
    config = model.config.to_dict() | {"transformers_version": None}
    digest = hashlib.sha256(
        f"{json.dumps(config, sort_keys=True)}{tokenizer.backend_tokenizer.to_str()}".encode()
    )
    for path, tensor in model.state_dict().items():
        digest.update(path.encode() + tensor.numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte of UTF-8; puts <s> before a text, as Llama's does."""
    tokens = [*SPECIAL.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    bos = SPECIAL["bos_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokens.index(bos))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)
