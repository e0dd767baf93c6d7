"""Searched transforms on blocks of every family, and the statistics they stand on."""

from dataclasses import replace

import pytest
import torch

from methods.awq import AWQ
from methods.blocks.input_statistics import channel_sizes, first, group_moments
from methods.contracts.seams import QueryKeySeam
from methods.contracts.tuning import Sample
from methods.smoothquant import SmoothQuant
from tests.helpers.block_samples import change, inputs_of, samples_of, uneven_block
from tests.helpers.problems import scheme
from tests.helpers.seam_settings import VARIANTS

QUICK = AWQ(points=3, search_tokens=1, clip=True, clip_steps=3, clip_floor=0.5)
# no seam at a norm
EVERY = [variant for variant in VARIANTS if variant not in ("opt_post_norm", "opt_bare", "bloom_residual")]


def nothing(done: int, total: int, note: str) -> None:
    pass


@pytest.mark.parametrize("variant", EVERY)
@pytest.mark.parametrize(
    "transform", [SmoothQuant(0.5), QUICK], ids=lambda transform: type(transform).__name__
)
def test_the_function_of_every_family_stays(transform, variant):
    block, samples = uneven_block(variant)
    before = {name: value.clone() for name, value in block.module.state_dict().items()}
    ranges = transform.apply_(block, samples, scheme(bits=2), nothing).ranges
    changed = {
        name for name, value in block.module.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed and change(block, samples) < 1e-5
    for path, found in ranges.items():
        assert found.low.shape == found.high.shape == (block.module.get_submodule(path).out_features, 1)
        assert (found.low < found.high).all()
    separate = all(
        seam.query.linear != seam.key.linear for seam in block.seams if isinstance(seam, QueryKeySeam)
    )
    assert not ranges or len(ranges) == len(block.linears) - 2 * separate


@pytest.mark.parametrize(
    "transform", [SmoothQuant(0.5), QUICK], ids=lambda transform: type(transform).__name__
)
def test_biases_are_scaled_with_their_rows(transform):
    """Even where they are large."""
    block, _ = uneven_block("qwen2")
    for parameter in block.module.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(torch.linspace(-1, 1, len(parameter)))
    samples = samples_of(block, "qwen2")
    transform.apply_(block, samples, scheme(bits=2), nothing)
    assert change(block, samples) < 1e-5


@pytest.mark.parametrize(
    "transform", [SmoothQuant(0.5), QUICK], ids=lambda transform: type(transform).__name__
)
def test_a_block_in_bfloat16_stays_in_it(transform):
    block, _ = uneven_block("opt")
    block.module.bfloat16()
    samples = samples_of(block, "opt")
    transform.apply_(block, samples, scheme(bits=3), nothing)
    assert {parameter.dtype for parameter in block.module.parameters()} == {torch.bfloat16}
    assert change(block, samples) < 0.05


def test_statistics_are_sums_over_all_tokens():
    block, samples = uneven_block("llama")
    # batches of different sizes
    samples[1] = Sample(samples[1].hidden[:1], samples[1].call, samples[1].target[:1])
    for path in ("self_attn.q_proj", "mlp.down_proj"):
        inputs = inputs_of(block, samples, path)
        sizes, moments = (
            channel_sizes(block, samples, [path])[path],
            group_moments(block, samples, [path], 16)[path],
        )
        assert sizes.tolist() == pytest.approx(
            [sum(column) / len(column) for column in inputs.abs().T.tolist()], rel=1e-5
        )
        for group in range(inputs.shape[1] // 16):
            part = inputs[:, 16 * group : 16 * group + 16]
            second = sum(torch.outer(row, row) for row in part) / len(part)
            torch.testing.assert_close(moments[group].double(), second, rtol=1e-4, atol=1e-6)
    whole = group_moments(block, samples, ["self_attn.q_proj"], None)["self_attn.q_proj"]
    assert whole.shape == (1, 64, 64)


def test_no_hooks_stay_behind_even_after_an_error():
    block, samples = uneven_block("llama")
    broken = replace(samples[1], hidden=samples[1].hidden[..., :7])
    with pytest.raises(RuntimeError):
        channel_sizes(block, [samples[0], broken], ["self_attn.q_proj"])
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in block.module.modules())


@pytest.mark.parametrize(
    "variant", ["llama", "gemma3", "opt", "bloom", "falcon_old", "falcon_sequential", "gpt_neox"]
)
def test_the_first_tokens_are_whole_sequences(variant):
    """Also where the block is called with something for every head of every sequence (Bloom)."""
    block, samples = uneven_block(variant)  # 2 batches of 2 x 56 tokens
    for tokens, sequences in (
        (1, [1]),
        (56, [1]),
        (57, [2]),
        (112, [2]),
        (113, [2, 1]),
        (169, [2, 2]),
        (10**6, [2, 2]),
    ):
        found = first(block, samples, tokens)
        assert [len(sample.hidden) for sample in found] == sequences
        for part, whole in zip(found, samples, strict=False):
            assert torch.equal(part.hidden, whole.hidden[: len(part.hidden)])
            torch.testing.assert_close(block.run(part.hidden, part.call), part.target, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_batch_that_cannot_be_cut_is_taken_whole():
    """Four sequences, and a mask for each of the four heads: nothing tells one from the other but the block's
    output.
    """
    block, samples = uneven_block("llama")
    hidden = torch.cat([sample.hidden for sample in samples])
    for masks, taken in (
        (torch.zeros(1, 4, 56, 56), 1),
        (torch.randn(4, 56, 56, generator=torch.Generator().manual_seed(0)), 4),
    ):
        call = replace(samples[0].call, kwargs=dict(samples[0].call.kwargs) | {"attention_mask": masks})
        (found,) = first(block, [Sample(hidden, call, block.run(hidden, call))], 56)
        assert len(found.hidden) == taken
        torch.testing.assert_close(block.run(found.hidden, found.call), found.target, rtol=1e-4, atol=1e-5)
