"""Blocks of every family with activations in few bits, against ones computed by hand or with every product
replaced.
"""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from harness.checkpoints.linear import QuantizedLinear
from harness.models import tiny
from harness.models.families import family_of
from harness.quantization.blocks import ModelBlocks
from methods.blocks.activations import quantized_activations
from methods.contracts.block import Attention, Block
from methods.contracts.scheme import ActRange
from methods.solving.ranges import fit_grid
from methods.weights.stored import UniformWeight
from tests.helpers.problems import scheme
from tests.helpers.tiny_models import VARIANTS, tokens
from tests.methods.blocks.test_activations import naive, normal

W4A4 = scheme(bits=4, act_bits=4)
STATIC = scheme(bits=4, act_bits=4, act_range=ActRange.tensor)
PLACES = {"bloom": "self_attention", "falcon": "self_attention", "gpt_neox": "attention"}

# --- whole blocks
# ------------------------------------------------------------------------------------------------


def inside(name: str, dtype=torch.float64, eager=False, rounded=False):
    """The second block of a tiny model, what goes into it, and how it is called."""
    model, _ = tiny.tiny_model(name, dtype=dtype)
    if eager:
        model.set_attn_implementation("eager")
    source = ModelBlocks(model, family_of(model.config))
    entry = source.capture(tokens(2, 40), 2)[0]
    block = list(source)[1]
    path = PLACES.get(name.partition("_")[0] if "falcon" in name else model.config.model_type, "self_attn")
    block = replace(block, attention=Attention(path, whole_tokens=model.config.model_type == "opt"))
    if rounded:
        for path in block.linears:
            linear = block.module.get_submodule(path)
            grid = fit_grid(linear.weight, W4A4)
            source.replace_linear(
                block,
                path,
                QuantizedLinear(UniformWeight(grid.encode(linear.weight), grid), linear.bias, dtype),
            )
    return block, entry.hidden, entry.calls[1]


def attention_by_hand(q, k, v, scaling):
    """(batch, heads, tokens, entries); every token sees itself and those before it."""
    scores = q @ k.mT * scaling
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -math.inf).softmax(-1) @ v


def llama_by_hand(module, hidden, call, act, kv):
    attention, (cos, sin) = module.self_attn, call.kwargs["position_embeddings"]

    def linear(layer, x):
        return act(x) @ layer.weight.T

    def heads(x):
        return x.unflatten(-1, (-1, 16)).transpose(1, 2)

    def rotated(x):
        return x * cos[:, None] + torch.cat([-x[..., 8:], x[..., :8]], -1) * sin[:, None]

    x = module.input_layernorm(hidden)
    q, k, v = (heads(linear(layer, x)) for layer in (attention.q_proj, attention.k_proj, attention.v_proj))
    q, k, v = act(rotated(q)), kv(rotated(k)).repeat_interleave(2, 1), kv(v).repeat_interleave(2, 1)
    mixed = attention_by_hand(q, k, v, 16**-0.5).transpose(1, 2).flatten(2)
    hidden = hidden + linear(attention.o_proj, mixed)
    x = module.post_attention_layernorm(hidden)
    return hidden + linear(
        module.mlp.down_proj, F.silu(linear(module.mlp.gate_proj, x)) * linear(module.mlp.up_proj, x)
    )


def opt_by_hand(module, hidden, call, act, kv):
    attention = module.self_attn

    def linear(layer, x):
        return act(x) @ layer.weight.T + layer.bias

    def heads(x):
        return x.unflatten(-1, (-1, 16)).transpose(1, 2)

    x = module.self_attn_layer_norm(hidden)
    q, k, v = (
        act(linear(attention.q_proj, x) * 16**-0.5),
        kv(linear(attention.k_proj, x)),
        kv(linear(attention.v_proj, x)),
    )
    hidden = hidden + linear(
        attention.out_proj, attention_by_hand(heads(q), heads(k), heads(v), 1).transpose(1, 2).flatten(2)
    )
    return hidden + linear(module.fc2, F.relu(linear(module.fc1, module.final_layer_norm(hidden))))


@torch.no_grad()
@pytest.mark.parametrize("act_bits, kv_bits", [(4, None), (4, 2), (8, 3), (None, 2)])
@pytest.mark.parametrize("name, by_hand", [("llama", llama_by_hand), ("opt", opt_by_hand)])
def test_blocks_written_by_hand(name, by_hand, act_bits, kv_bits):
    block, hidden, call = inside(name)
    act = (lambda x: naive(x, act_bits)) if act_bits else (lambda x: x)
    expected = by_hand(block.module, hidden, call, act, lambda x: naive(x, kv_bits or act_bits))
    plain = block.run(hidden, call)
    torch.testing.assert_close(
        by_hand(block.module, hidden, call, lambda x: x, lambda x: x), plain, rtol=1e-6, atol=1e-6
    )
    with quantized_activations(block, scheme(act_bits=act_bits, kv_bits=kv_bits)):
        found = block.run(hidden, call)
    assert (found - plain).square().mean() > 1e-6
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(block.run(hidden, call), plain), "nothing stays behind"


def with_patched_products(block, hidden, call, act, kv):
    """The block with its linears and the functions that attentions call replaced by ones that round first."""
    plain = F.scaled_dot_product_attention, torch.bmm, torch.Tensor.baddbmm
    with pytest.MonkeyPatch.context() as patch:
        for path in block.linears:
            linear = block.module.get_submodule(path)
            patch.setattr(
                linear, "forward", lambda x, linear=linear: F.linear(act(x), linear.weight, linear.bias)
            )
        patch.setattr(
            F,
            "scaled_dot_product_attention",
            lambda q, k, v, **options: plain[0](act(q), kv(k), kv(v), **options),
        )
        patch.setattr(torch, "bmm", lambda probabilities, v: plain[1](probabilities, kv(v)))

        def bloom(self, batch1, batch2, **options):
            return plain[2](self, act(batch1), kv(batch2.mT).mT, **options)

        patch.setattr(torch.Tensor, "baddbmm", bloom)
        return block.run(hidden, call)


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in VARIANTS if not name.startswith("opt")])
def test_blocks_of_every_family_round_every_operand(name):
    block, hidden, call = inside(name)
    plain = block.run(hidden, call)
    for act_bits, kv_bits in ((4, 3), (None, 3)):
        act = (lambda x: naive(x, 4)) if act_bits else (lambda x: x)
        expected = with_patched_products(block, hidden, call, act, lambda x: naive(x, 3))
        with quantized_activations(block, scheme(act_bits=act_bits, kv_bits=kv_bits)):
            found = block.run(hidden, call)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert (found - plain).square().mean() > 1e-7 and torch.equal(block.run(hidden, call), plain)


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["llama", "qwen3", "gemma3", "opt", "falcon_old", "falcon_sequential", "gpt_neox"]
)
def test_attention_written_out_gives_the_same(name):
    results = []
    for eager in (False, True):
        block, hidden, call = inside(name, eager=eager)
        with quantized_activations(block, scheme(act_bits=8, kv_bits=4)):
            results.append(block.run(hidden, call))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_gradients_reach_the_weights_of_a_block_that_is_called_with_others():
    """As transforms are trained. The reference differentiates the definition."""
    block, hidden, call = inside("llama")
    values = {name: value.clone().requires_grad_() for name, value in block.module.named_parameters()}
    outer = normal(*hidden.shape, seed=2)

    def gradients(run):
        output = run(lambda: functional_call(block.module, values, (hidden, *call.args), dict(call.kwargs)))
        return torch.autograd.grad(output, tuple(values.values()), outer)

    def definition(forward):
        copied = replace(block, module=copy.deepcopy(block.module))
        for name, value in values.items():
            owner, _, leaf = name.rpartition(".")
            del copied.module.get_submodule(owner)._parameters[leaf]
            setattr(copied.module.get_submodule(owner), leaf, value)
        return with_patched_products(copied, hidden, call, lambda x: naive(x, 4), lambda x: naive(x, 4))

    with quantized_activations(block, W4A4):
        found = gradients(lambda forward: forward())
    for name, ours, theirs in zip(values, found, gradients(definition), strict=True):
        assert ours.abs().max() > 0, name
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8, msg=name)


@torch.no_grad()
def test_a_later_hook_sees_the_rounded_input_and_float_schemes_change_nothing():
    block, hidden, call = inside("llama")
    linear, seen = block.module.self_attn.o_proj, []

    def look(module, inputs):
        seen.append(inputs[0])

    with quantized_activations(block, W4A4):
        handle = linear.register_forward_pre_hook(look)
        block.run(hidden, call)
    assert len(seen[0][0, 0].unique()) <= 16
    with quantized_activations(block, scheme()):
        assert torch.equal(block.run(hidden, call), block.module(hidden, *call.args, **call.kwargs))
    handle.remove()
    with quantized_activations(replace(block, attention=None), scheme()):
        pass
    with (
        pytest.raises(ValueError, match=r"layers.1: .* where queries, keys"),
        quantized_activations(replace(block, attention=None), W4A4),
    ):
        pass
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in block.module.modules())


# --- attentions that cannot be served
# ----------------------------------------------------------------------------


class Odd(nn.Module):
    """An attention whose forward is given."""

    def __init__(self, forward):
        super().__init__()
        self.compute = forward

    def forward(self, x):
        return self.compute(x)


def odd(forward) -> Block:
    return Block("odd", 0, nn.Sequential(Odd(forward)), (), attention=Attention("0", whole_tokens=False))


def scores_only(x):
    return x @ x.mT


def with_three_products(x):
    return (x @ x.mT).softmax(-1) @ x @ x.mT


def with_other_probabilities(x):
    scores = x @ x.mT
    return scores[:, :, :2] @ x


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: x + 1, "no such product was seen"),
        (lambda x: x @ x[0, 0].T, "no such product was seen"),
        (lambda x: torch.einsum("bhtd,bhsd->bhts", x, x), "no such product was seen"),
        (scores_only, "no such product was seen"),
        (with_three_products, "more than queries"),
        (with_other_probabilities, "more than queries"),
        (
            lambda x: F.scaled_dot_product_attention(x, x, F.scaled_dot_product_attention(x, x, x)),
            "more than queries",
        ),
    ],
)
def test_an_attention_that_multiplies_otherwise_is_refused(forward, message):
    x, block = normal(1, 2, 5, 4), odd(forward)
    for act_bits, kv_bits in ((4, None), (None, 4)):
        with (
            pytest.raises(RuntimeError, match=message),
            quantized_activations(block, scheme(act_bits=act_bits, kv_bits=kv_bits)),
        ):
            block.module(x)
        assert torch.equal(
            F.scaled_dot_product_attention(x, x, x), F.scaled_dot_product_attention(x, x, x.clone())
        )


def test_what_a_forward_raises_passes_and_leaves_nothing_behind():
    class Enough(Exception):
        pass

    def raising(x):
        F.scaled_dot_product_attention(x, x, x)
        raise Enough

    x = normal(1, 2, 5, 4)
    block = odd(raising)
    plain = F.scaled_dot_product_attention(x, x, x)
    with quantized_activations(block, W4A4):
        for _ in range(2):
            with pytest.raises(Enough):
                block.module(x)
            assert torch.equal(F.scaled_dot_product_attention(x, x, x), plain)


def test_one_range_over_all_heads_needs_heads():
    block, hidden, call = inside("bloom")
    with (
        pytest.raises(RuntimeError, match="over all heads needs"),
        quantized_activations(replace(block, attention=Attention("self_attention", whole_tokens=True)), W4A4),
    ):
        block.run(hidden, call)
