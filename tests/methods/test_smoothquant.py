"""SmoothQuant: its factors against Eq. 4 worked out entry by entry, and what it leaves alone."""

import pytest
import torch

from methods.contracts.seams import NormSeam
from methods.smoothquant import SmoothQuant
from tests.helpers.block_samples import change, inputs_of, samples_of, uneven_block
from tests.helpers.problems import scheme

W8A8 = scheme(bits=8, act_bits=8)


def nothing(done: int, total: int, note: str) -> None:
    pass


def apply(alpha: float, block, samples):
    return SmoothQuant(alpha).apply_(block, samples, W8A8, nothing)


def norm_weight(block, seam: NormSeam) -> torch.Tensor:
    weight = block.module.get_submodule(seam.norm).weight.detach().double()
    return 1 + weight if seam.one_plus else weight.clone()


@pytest.mark.parametrize("variant", ["llama", "opt", "gemma3", "falcon_one_norm", "bloom"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8])
def test_factors_are_those_of_equation_4(variant, alpha):
    block, samples = uneven_block(variant)
    seams = [seam for seam in block.seams if isinstance(seam, NormSeam)]
    expected = []
    for seam in seams:
        inputs = inputs_of(block, samples, seam.consumers[0])
        weights = [block.module.get_submodule(path).weight.double() for path in seam.consumers]
        factors = []
        for channel in range(seam.width):
            of_input = max(abs(value) for value in inputs[:, channel].tolist())
            of_weight = max(abs(value) for weight in weights for value in weight[:, channel].tolist())
            factors.append(of_input**alpha / of_weight ** (1 - alpha))
        expected.append(
            (
                norm_weight(block, seam),
                torch.tensor(factors, dtype=torch.float64),
                [weight.clone() for weight in weights],
            )
        )
    apply(alpha, block, samples)
    for seam, (norm, factor, weights) in zip(seams, expected, strict=True):
        torch.testing.assert_close(norm_weight(block, seam), norm / factor, rtol=1e-5, atol=1e-6)
        for path, weight in zip(seam.consumers, weights, strict=True):
            torch.testing.assert_close(
                block.module.get_submodule(path).weight.double(), weight * factor, rtol=1e-5, atol=1e-7
            )


def test_alpha_1_evens_out_activations_and_0_weights():
    for alpha in (0.0, 1.0):
        block, samples = uneven_block("llama")
        seam = block.seams[0]
        apply(alpha, block, samples)
        largest = inputs_of(block, samples, seam.consumers[0]).abs().amax(0)
        if alpha == 0.0:
            largest = (
                torch.stack(
                    [block.module.get_submodule(path).weight.abs().amax(0) for path in seam.consumers]
                )
                .amax(0)
                .double()
            )
        torch.testing.assert_close(largest, torch.ones_like(largest), rtol=1e-5, atol=0)


def test_only_norms_and_their_readers_change():
    block, samples = uneven_block("llama")
    before = {name: value.clone() for name, value in block.module.state_dict().items()}
    apply(0.5, block, samples)
    changed = {
        name for name, value in block.module.state_dict().items() if not torch.equal(value, before[name])
    }
    readers = {f"self_attn.{name}_proj.weight" for name in "qkv"} | {
        "mlp.gate_proj.weight",
        "mlp.up_proj.weight",
    }
    assert changed == readers | {"input_layernorm.weight", "post_attention_layernorm.weight"}


def test_dead_channels_stay():
    block, samples = uneven_block("llama")
    norm, queries = block.module.input_layernorm, block.module.self_attn
    norm.weight.data[5] = 0  # no activation
    for name in "qkv":
        getattr(queries, f"{name}_proj").weight.data[:, 9] = 0  # no weight
    samples = samples_of(block, "llama")
    before, column = norm.weight.clone(), queries.q_proj.weight[:, 5].clone()
    apply(0.5, block, samples)
    assert (
        norm.weight[5] == 0
        and norm.weight[9] == before[9]
        and torch.equal(queries.q_proj.weight[:, 5], column)
    )
    assert (
        all(value.isfinite().all() for value in block.module.parameters()) and change(block, samples) < 1e-5
    )


def test_outliers_shrink_and_the_record_says_so():
    block, samples = uneven_block("llama", spread=1.5)
    stats = apply(0.5, block, samples).stats
    assert stats["span_after"] < stats["span_before"] / 2
    sizes = [
        inputs_of(block, samples, seam.consumers[0]).abs().amax(0)
        for seam in block.seams
        if isinstance(seam, NormSeam)
    ]
    assert stats["span_after"] == pytest.approx(
        max((size.max() / size.mean()).item() for size in sizes), rel=1e-4
    )


def test_a_model_without_norm_seams_is_refused():
    llama, _ = uneven_block("llama")
    post_norm, _ = uneven_block("opt_post_norm")
    assert SmoothQuant(0.5).skip_reason(W8A8, llama.seams) is None
    assert "norm" in SmoothQuant(0.5).skip_reason(W8A8, post_norm.seams)
    assert SmoothQuant(0.5).skip_reason(W8A8, ())


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_alpha_out_of_range_is_named(alpha):
    with pytest.raises(ValueError, match=f"^alpha={alpha}"):
        SmoothQuant(alpha)
