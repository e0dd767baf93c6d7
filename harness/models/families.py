"""What we know about each architecture: where its blocks are, which linears they hold, which of these share
an input.

A family is one row of `FAMILIES`. Its groups follow the data flow inside a block: the linears of one group
read the same tensor and so share one Hessian. Where that depends on the checkpoint, groups are a function of
its config. Where a block may be rewritten is in tables of its own, see `harness.models.seams`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from harness.config.groups import Bos
from harness.foundation.errors import UserError
from harness.models import seams as seam_tables
from methods.contracts.block import Attention
from methods.contracts.seams import Seam

Groups = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Family:
    """One architecture."""

    name: str  # transformers' model_type
    blocks: str  # path of the list of blocks in the causal language model
    groups: Callable[[PreTrainedConfig], Groups]
    # of every block, along the data flow
    seams: Callable[[PreTrainedConfig], tuple[Seam, ...]] = field(default=lambda config: ())
    # of every block
    attention: Callable[[PreTrainedConfig], Attention | None] = field(default=lambda config: None)
    # why a config cannot be served
    objection: Callable[[PreTrainedConfig], str | None] = field(default=lambda config: None)
    # where it needs a BOS: window, or wherever the tokenizer puts it
    bos: Bos = Bos.stream

    def block_list(self, model: nn.Module) -> nn.ModuleList:
        return model.get_submodule(self.blocks)


def family_of(config: PreTrainedConfig) -> Family:
    """The family of a model's config.

    Raises:
        UserError: the architecture is unknown, or this configuration of it is not supported; says what was
            found and the share of the weights that would stay float.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        known = f"known: {', '.join(FAMILIES)}"
        raise UserError(f"model_type {config.model_type!r} is not supported ({known}): {_contents(config)}")
    reason = family.objection(config)
    if reason:
        raise UserError(f"model_type {family.name!r}: {reason}")
    return family


def check_coverage(model: nn.Module, family: Family, config: PreTrainedConfig) -> None:
    """Refuse a model whose blocks hold weight matrices that the table does not name, or lack one that it
    names.

    Raises:
        UserError: names the first such matrix, and the share of the weights that would stay float.
    """
    named = {path for group in family.groups(config) for path in group}
    for index, block in enumerate(family.block_list(model)):
        where, parameters = f"{family.blocks}.{index}", dict(block.named_parameters())
        missing = named - {path for path, module in block.named_modules() if isinstance(module, nn.Linear)}
        if missing:
            raise UserError(
                f"{where} has no linear {min(missing)!r}, which every {family.name} block should have"
            )
        matrices = [
            path for path, p in parameters.items() if p.ndim > 1 and path.rpartition(".")[0] not in named
        ]
        if matrices:
            share = _size(parameters[path] for path in matrices) / _size(parameters.values())
            raise UserError(
                f"{where}.{min(matrices)} is not in the table of {family.name} linears: {share:.1%} of the "
                "block's weights would stay float"
            )


def skeleton(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The model of a config on the meta device: every shape, no memory.

    Raises:
        UserError: transformers has no causal language model for this config.
    """
    try:
        with torch.device("meta"), no_init_weights():
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"model_type {config.model_type!r}: no causal language model can be built from config.json: "
            f"{reason}"
        ) from error
    model.tie_weights()
    return model.eval().requires_grad_(False)


def _size(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _contents(config: PreTrainedConfig) -> str:
    """What an unknown architecture consists of, for the error message."""
    model = skeleton(config, torch.float32)
    fused = {name: p for name, p in model.named_parameters() if p.ndim == 3}
    if fused:
        share = _size(fused.values()) / _size(model.parameters())
        return (
            f"its experts are fused 3-D tensors (e.g. {min(fused)}), so {share:.1%} of its weights would "
            "stay float"
        )
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
    ]
    if not lists:
        return "it has no list of blocks, so all of its weights would stay float"
    path, blocks = max(lists, key=lambda item: len(item[1]))
    linears = [name for name, module in blocks[0].named_modules() if isinstance(module, nn.Linear)]
    return (
        "without a row in harness/models/families.py all of its weights would stay float; found "
        f"{len(blocks)} blocks at {path} with linears {', '.join(linears) or 'none'}"
    )


def _always(*groups: tuple[str, ...]) -> Callable[[PreTrainedConfig], Groups]:
    return lambda config: groups


LLAMA = _always(
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
OPT = _always(
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("self_attn.out_proj",), ("fc1",), ("fc2",)
)
BLOOM = _always(
    ("self_attention.query_key_value",),
    ("self_attention.dense",),
    ("mlp.dense_h_to_4h",),
    ("mlp.dense_4h_to_h",),
)
# Parallel or not, the attention and the MLP of GPT-NeoX have a layer norm each, and so never share an input.
GPT_NEOX = _always(
    ("attention.query_key_value",), ("attention.dense",), ("mlp.dense_h_to_4h",), ("mlp.dense_4h_to_h",)
)


def _falcon(config: PreTrainedConfig) -> Groups:
    """The MLP reads the attention's input where both stand behind one layer norm (7B, 11B), not behind two
    (40B, 180B).
    """
    if config.new_decoder_architecture:
        shared = config.num_ln_in_parallel_attn == 1  # None means 2
    else:
        shared = config.parallel_attn
    return (
        (("self_attention.query_key_value", "mlp.dense_h_to_4h"), *BLOOM(config)[1::2])
        if shared
        else BLOOM(config)
    )


def _bloom_objection(config: PreTrainedConfig) -> str | None:
    if config.pretraining_tp > 1 and config.slow_but_exact:
        return (
            "slow_but_exact=true multiplies slices of weights outside their linears; set it to false in "
            "config.json"
        )
    return None


GEMMA_SEAMS = seam_tables.llama("pre_feedforward_layernorm", one_plus=True, head_norms=True)


def _attention(path: str, whole_tokens: bool = False) -> Callable[[PreTrainedConfig], Attention]:
    return lambda config: Attention(path, whole_tokens)


SELF_ATTN, SELF_ATTENTION = _attention("self_attn"), _attention("self_attention")
# OPT's queries, keys and values are quantized before they are split into heads, as OmniQuant and AffineQuant
# do it.
WHOLE_TOKENS = _attention("self_attn", whole_tokens=True)

FAMILIES = {
    family.name: family
    for family in (
        Family("llama", "model.layers", LLAMA, seam_tables.llama(), SELF_ATTN),
        Family("mistral", "model.layers", LLAMA, seam_tables.llama(), SELF_ATTN),
        Family("qwen2", "model.layers", LLAMA, seam_tables.llama(), SELF_ATTN),
        Family("qwen3", "model.layers", LLAMA, seam_tables.llama(head_norms=True), SELF_ATTN),
        Family("gemma3_text", "model.layers", LLAMA, GEMMA_SEAMS, SELF_ATTN, bos=Bos.window),
        # the vision tower stays float
        Family("gemma3", "model.language_model.layers", LLAMA, GEMMA_SEAMS, SELF_ATTN, bos=Bos.window),
        Family("opt", "model.decoder.layers", OPT, seam_tables.opt, WHOLE_TOKENS),
        Family("bloom", "transformer.h", BLOOM, seam_tables.bloom, SELF_ATTENTION, _bloom_objection),
        Family("falcon", "transformer.h", _falcon, seam_tables.falcon, SELF_ATTENTION),
        Family("gpt_neox", "gpt_neox.layers", GPT_NEOX, seam_tables.gpt_neox, _attention("attention")),
    )
}
