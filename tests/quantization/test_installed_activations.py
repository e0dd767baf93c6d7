"""Blocks that quantize their activations for good: static ranges, copies, caches, zero-shot scores."""

import copy
from dataclasses import replace

import pytest
import torch

from harness.checkpoints.linear import QuantizedLinear
from harness.config.groups import Bos
from harness.evaluation.language_model import Scorer
from harness.models import tiny
from harness.models.families import family_of
from harness.quantization.blocks import ModelBlocks
from methods.blocks.activations import (
    ActivationQuantizer,
    calibrating,
    install_activations_,
    quantized_activations,
)
from methods.blocks.attention_operands import AttentionOperands
from methods.contracts.block import Attention
from methods.solving.ranges import fit_grid
from methods.weights.stored import UniformWeight
from tests.helpers.problems import scheme
from tests.helpers.tiny_models import tokens
from tests.methods.blocks.test_activations import naive, token_format
from tests.quantization.test_quantized_blocks import STATIC, W4A4, inside, llama_by_hand, opt_by_hand


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "opt", "bloom", "falcon_new"])
def test_installed_for_good_is_the_same_as_for_a_while(name):
    block, hidden, call = inside(name, rounded=True)
    with quantized_activations(block, W4A4):
        expected = block.run(hidden, call)
    install_activations_(block, W4A4)
    assert torch.equal(block.run(hidden, call), expected)
    with quantized_activations(block, W4A4):
        assert torch.equal(block.run(hidden, call), expected), "nothing is rounded twice"
    with calibrating(block):
        assert torch.equal(block.run(hidden, call), expected), "dynamic ranges need no calibration"
    shown = repr(block.module)
    assert (
        shown.count("ActivationQuantizer(4 bits per token)") == len(block.linears) + 3
        and "(operands): AttentionOperands(" in shown
    )
    with pytest.raises(ValueError, match="already"):
        install_activations_(block, W4A4)


@torch.no_grad()
def test_keys_and_values_alone_leave_the_linears_float():
    block, _, _ = inside("llama", rounded=True)
    install_activations_(block, scheme(bits=4, kv_bits=3))
    assert block.module.mlp.up_proj.activation is None and block.module.self_attn.operands.query is None
    assert str(block.module.self_attn.operands.key) == "ActivationQuantizer(3 bits per token)"
    install_activations_(block, scheme())  # nothing to do
    untouched, _, _ = inside("llama")
    with pytest.raises(ValueError, match=r"q_proj is a Linear"):
        install_activations_(untouched, W4A4)


@torch.no_grad()
def test_static_ranges_are_those_of_the_calibration_text():
    block, hidden, call = inside("llama", rounded=True)
    plain, seen = block.run(hidden, call), {}

    def look(path):
        return lambda module, inputs: seen.setdefault(path, []).append(inputs[0])

    handles = [
        block.module.get_submodule(path).register_forward_pre_hook(look(path)) for path in block.linears
    ]
    install_activations_(block, STATIC)
    with pytest.raises(RuntimeError, match="before any text calibrated it"):
        block.run(hidden, call)
    seen.clear()
    with calibrating(block):
        outputs = [block.run(part, call) for part in (hidden, hidden[:1], hidden.flip(1) * 0.5)]
    assert torch.equal(outputs[0], plain), "what calibrates is not rounded"
    for path in block.linears:
        quantizer = block.module.get_submodule(path).activation
        assert (
            quantizer.low == min(x.min() for x in seen[path]).float()
            and quantizer.high == max(x.max() for x in seen[path]).float()
        )
    for handle in handles:
        handle.remove()
    found = block.run(hidden, call)
    operands = block.module.self_attn.operands

    def by_ends(quantizer):
        return lambda x: naive(x, 4, ends=(quantizer.low.double(), quantizer.high.double()))

    inputs = [block.module.get_submodule(path).activation for path in block.linears]
    turns = map(by_ends, [*inputs[:3], operands.query, *inputs[3:]])
    keys_and_values = iter([by_ends(operands.key), by_ends(operands.value)])
    expected = llama_by_hand(
        block.module, hidden, call, lambda x: next(turns)(x), lambda x: next(keys_and_values)(x)
    )
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert (found - plain).square().mean() > 1e-6


@torch.no_grad()
def test_for_a_while_a_static_range_is_the_batchs():
    block, hidden, call = inside("opt")

    def whole(x):
        return naive(x.flatten(), 4).view_as(x)

    with quantized_activations(block, STATIC):
        torch.testing.assert_close(
            block.run(hidden, call),
            opt_by_hand(block.module, hidden, call, whole, whole),
            rtol=1e-9,
            atol=1e-9,
        )


@torch.no_grad()
@pytest.mark.parametrize("kind", [W4A4, STATIC])
def test_a_copy_of_an_equipped_block_is_on_its_own(kind):
    block, hidden, call = inside("llama", rounded=True)
    install_activations_(block, kind)
    with calibrating(block):
        block.run(hidden, call)
    expected = block.run(hidden, call)
    copied = replace(block, module=copy.deepcopy(block.module))
    for quantizer in (module for module in block.module.modules() if isinstance(module, ActivationQuantizer)):
        quantizer.format = token_format(2)
    assert torch.equal(copied.run(hidden, call), expected)
    assert not torch.equal(block.run(hidden, call), expected)
    operands = copied.module.self_attn.operands
    assert isinstance(operands, AttentionOperands) and operands is not block.module.self_attn.operands
    assert copied.module.mlp.to(torch.bfloat16)(hidden.bfloat16()).dtype == torch.bfloat16


def equipped_model():
    """Linears of 4 bits that round their inputs, in float64, so that no rounding of activations is decided by
    the order of a sum.
    """
    model, tokenizer = tiny.tiny_model("llama", dtype=torch.float64)
    for block in ModelBlocks(model, family_of(model.config)):
        for path in block.linears:
            weight = block.module.get_submodule(path).weight
            grid = fit_grid(weight, W4A4)
            block.module.set_submodule(
                path, QuantizedLinear(UniformWeight(grid.encode(weight), grid), None, torch.float64)
            )
        install_activations_(replace(block, attention=Attention("self_attn", whole_tokens=False)), W4A4)
    return model, tokenizer


@torch.no_grad()
def test_a_cache_changes_nothing():
    """Tokens are rounded one by one, so that generation step by step is the whole text at once."""
    model, _ = equipped_model()
    given = tokens(1, 12)
    whole = model(given, use_cache=False).logits
    cache, steps = None, []
    for token in given[0]:
        output = model(token.view(1, 1), past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_zero_shot_scores_are_those_of_each_text_alone():
    """In batches with padding, where a shorter text stands beside longer ones."""
    model, tokenizer = equipped_model()
    texts = [tokens(1, length)[0].tolist() for length in (30, 28, 25, 9)]
    found = Scorer(model, tokenizer, Bos.stream, 512, 64)._loglikelihood_tokens(
        [(("", ""), text[:-5], text[-5:]) for text in texts]
    )
    for text, (score, _) in zip(texts, found, strict=True):
        logits = model(torch.tensor([text]), use_cache=False).logits[0].log_softmax(-1)
        expected = sum(
            logits[position - 1, text[position]].item() for position in range(len(text) - 5, len(text))
        )
        assert score == pytest.approx(expected, rel=1e-5)
