"""Seams of every family: what stands at them changes no block's output, in float32 and in float64."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from methods.blocks.affine_norm import AffineNorm
from methods.blocks.functional import values_of
from methods.blocks.installing import install_, make_room_
from methods.blocks.rewriting import Factor
from methods.contracts.block import Attention
from methods.contracts.seams import MiddleSeam, NormSeam, QueryKeySeam, Seam, ValueSeam
from tests.helpers.random_factors import allowed, random_factor
from tests.helpers.seam_settings import VARIANTS, setting

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.fixture(autouse=True)
def softmax_in_its_own_dtype(monkeypatch) -> None:
    """Eager attention takes the softmax in float32."""
    plain = F.softmax
    monkeypatch.setattr(F, "softmax", lambda scores, dim, dtype=None: plain(scores, dim))


def every(variant: str, dtype: torch.dtype = torch.float32) -> Iterator[tuple[Seam, Factor]]:
    generator = torch.Generator().manual_seed(0)
    for seam in setting(variant, dtype).block.seams:
        for full, shift in allowed(seam):
            yield seam, random_factor(seam, generator, full, shift)


# --- the tables
# --------------------------------------------------------------------------------------------------


GATED = "input_layernorm queries values {} middle"
EXPECTED = {
    **dict.fromkeys(["llama", "mistral", "qwen2", "qwen3"], GATED.format("post_attention_layernorm")),
    **dict.fromkeys(
        ["llama_biases", "llama_long_heads", "mistral_one_key", "qwen3_biases"],
        GATED.format("post_attention_layernorm"),
    ),
    **dict.fromkeys(["gemma3", "gemma3_vision"], GATED.format("pre_feedforward_layernorm")),
    **dict.fromkeys(["opt", "opt_no_bias"], "self_attn_layer_norm queries values final_layer_norm middle"),
    "opt_gelu": "self_attn_layer_norm queries values final_layer_norm",
    **dict.fromkeys(["opt_post_norm", "opt_bare"], "queries values middle"),
    **dict.fromkeys(
        ["bloom", "falcon_sequential"], "input_layernorm queries values post_attention_layernorm"
    ),
    "bloom_residual": "queries values",
    **dict.fromkeys(["falcon_old", "falcon_one_norm", "falcon_per_head"], "input_layernorm queries values"),
    "falcon_new": "ln_attn queries values ln_mlp",
    **dict.fromkeys(
        ["gpt_neox", "gpt_neox_sequential", "gpt_neox_half"],
        "input_layernorm queries values post_attention_layernorm",
    ),
    **dict.fromkeys(
        ["falcon_alibi", "gpt_neox_whole"], "input_layernorm queries values post_attention_layernorm middle"
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_seams_of_a_family(variant):
    names = {QueryKeySeam: "queries", ValueSeam: "values", MiddleSeam: "middle"}
    seams = setting(variant).block.seams
    assert " ".join(names.get(type(seam)) or seam.norm for seam in seams) == EXPECTED[variant]


@pytest.mark.parametrize("variant", VARIANTS)
def test_tables_fit_the_block(variant):
    """Paths exist, widths and biases are right, heads cover all rows of their linears once, consumers are all
    that share an input.
    """
    block = setting(variant).block
    at, covered = block.module.get_submodule, {}
    for seam in block.seams:
        if isinstance(seam, NormSeam):
            assert set(seam.consumers) in [set(group) for group in block.groups]
            assert all(at(path).in_features == seam.width for path in seam.consumers)
            assert seam.has_bias == (getattr(at(seam.norm), "bias", None) is not None)
            assert at(seam.norm).weight.shape == (seam.width,)
        elif isinstance(seam, MiddleSeam):
            assert at(seam.up).out_features == at(seam.down).in_features == seam.width
        else:
            parts = [seam.value] if isinstance(seam, ValueSeam) else [seam.query, seam.key]
            for heads in parts:
                covered.setdefault(heads.linear, []).append(heads.rows.flatten())
        if isinstance(seam, ValueSeam):
            assert at(seam.output).in_features == seam.query_heads * seam.value.size
        if isinstance(seam, QueryKeySeam) and seam.norms:
            assert [at(path).weight.numel() for path in seam.norms] == 2 * [seam.key.size]
    for path, rows in covered.items():
        assert torch.equal(torch.cat(rows).sort().values, torch.arange(at(path).out_features)), path
    assert hasattr(at(block.attention.path), "forward") and set(covered) == {
        p for p in block.groups[0] if "mlp" not in p
    }


def test_opt_alone_quantizes_queries_keys_and_values_as_whole_tokens():
    found = {variant: setting(variant).block.attention for variant in VARIANTS}
    assert all(attention.whole_tokens == variant.startswith("opt") for variant, attention in found.items())
    assert (
        found["gpt_neox"] == Attention("attention", False)
        and found["bloom"].path == found["falcon_new"].path == "self_attention"
    )


@pytest.mark.parametrize(
    "variant, rotary",
    [("gpt_neox", 4), ("gpt_neox_whole", 16), ("falcon_old", 16), ("falcon_alibi", 0), ("bloom", 0)],
)
def test_rotated_entries(variant, rotary):
    (seam,) = (seam for seam in setting(variant).block.seams if isinstance(seam, QueryKeySeam))
    assert seam.rotary == rotary


# --- function preserved
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_one_factor_changes_nothing(variant, dtype):
    start = setting(variant, dtype)
    for seam, factor in every(variant, dtype):
        block = start.copy()
        install_(block, [(seam, factor)])
        assert start.distance(block) < TOLERANCE[dtype], (seam, factor.matrix.ndim, factor.shift is not None)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_factors_at_all_seams_change_nothing(variant, full, dtype):
    start, generator = setting(variant, dtype), torch.Generator().manual_seed(1)
    block = start.copy()
    factors = [(seam, random_factor(seam, generator, full, shift=True)) for seam in block.seams]
    install_(block, factors)
    assert start.distance(block) < TOLERANCE[dtype]
    before = values_of(start.block)
    same = {
        name
        for name, value in values_of(block).items()
        if name in before and torch.equal(value, before[name])
    }
    assert not same & {f"{path}.weight" for path in block.groups[0]}  # they did something
    for name, value in values_of(block).items():
        assert value.dtype == (torch.float16 if name.endswith((".shift", ".inverse")) else dtype), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_room_changes_nothing(variant):
    start = setting(variant)
    block = start.copy()
    for seam in block.seams:
        make_room_(block, seam, matrix=True, shift=True)
        make_room_(block, seam, matrix=True, shift=True)  # nor a second time
    assert start.distance(block) == 0
    wrapped = [module for module in block.module.modules() if isinstance(module, AffineNorm)]
    assert len(wrapped) == sum(isinstance(seam, NormSeam) for seam in block.seams)
    assert not any(
        isinstance(module.norm, AffineNorm) or module.stored() or module.multiply_adds() for module in wrapped
    )


@pytest.mark.parametrize("variant", ["llama", "gpt_neox", "falcon_new", "falcon_old"])
def test_any_other_matrix_on_rotated_heads_changes_the_output(variant):
    start = setting(variant)
    (seam,) = (seam for seam in start.block.seams if isinstance(seam, QueryKeySeam))
    unrotated = random_factor(
        replace(seam, rotary=0), torch.Generator().manual_seed(0), full=True, shift=False
    )
    untied = unrotated.matrix.diagonal(dim1=1, dim2=2).clone()
    for matrix in (unrotated.matrix, untied):
        block = start.copy()
        install_(block, [(seam, Factor(matrix))])
        assert start.distance(block) > 1e-3
