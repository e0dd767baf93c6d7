"""Tuning after rounding: on a block of a tiny model end to end, and each promise by itself."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from harness.checkpoints.linear import QuantizedLinear
from harness.models import tiny
from harness.models.families import family_of
from harness.quantization.batches import Batch
from harness.quantization.blocks import ModelBlocks
from harness.quantization.hessians import gather
from methods.centroid_tuning import BlockState, CentroidTuning, output_error, shuffled
from methods.contracts.block import Block
from methods.contracts.problem import LayerProblem
from methods.contracts.quantized_weight import QuantizedWeight
from methods.contracts.tuning import Sample, TunableWeight, Tuned
from methods.gptvq import GPTVQ
from methods.rtn import RTN
from methods.weights.bits_per_weight import bits_per_weight
from tests.helpers.problems import scheme
from tests.helpers.tiny_models import tokens

SOLVER = GPTVQ(
    vector_length=2,
    columns_per_group=256,
    codebook_overhead=0.125,
    codebook_bits=8,
    kmeans_iterations=20,
    kmeans_tolerance=0.001,
    codebook_steps=10,
    damping=0.01,
    act_order=True,
)
TUNING = CentroidTuning(steps=20, learning_rate=0.005, norm_learning_rate=0.001, batches_per_step=2, seed=0)


def rounded_block(
    name="llama", dtype=torch.float32, solver=SOLVER
) -> tuple[Block, list[Sample], dict[str, QuantizedWeight]]:
    """The first block of a tiny model, still in float, its samples, and its linears rounded to 2 bits."""
    model, _ = tiny.tiny_model(name, dtype=dtype)
    source = ModelBlocks(model, family_of(model.config))
    block = next(iter(source))
    batches = [Batch(entry.hidden, entry.calls) for entry in source.capture(tokens(16, 64), 2)]
    statistics, outputs = gather(block, batches, block.groups)
    samples = [
        Sample(batch.hidden, batch.calls[0], output) for batch, output in zip(batches, outputs, strict=True)
    ]
    weights = {}
    for path, entry in statistics.items():
        problem = LayerProblem(
            block.module.get_submodule(path).weight.detach().float(), entry.hessian, scheme(bits=2)
        )
        weights[path] = solver.solve(problem).weight
    return block, samples, weights


def put_in(block: Block, weights: dict[str, QuantizedWeight], tuned: Tuned) -> None:
    """What a pipeline does with a tuned block."""
    for path, weight in (weights | dict(tuned.weights)).items():
        linear = block.module.get_submodule(path)
        block.module.set_submodule(path, QuantizedLinear(weight, linear.bias, linear.weight.dtype))
    with torch.no_grad():
        for name, value in tuned.parameters.items():
            block.module.get_parameter(name).copy_(value)


@torch.no_grad()
def error_of(block: Block, samples: list[Sample]) -> float:
    errors = [(block.run(s.hidden, s.call).float() - s.target.float()).square().mean() for s in samples]
    return torch.stack(errors).mean().item()


@pytest.mark.parametrize("name", ["llama", "opt", "qwen3", "gemma3", "bloom", "falcon_new", "gpt_neox"])
def test_the_block_comes_closer_to_its_float_output(name):
    block, samples, weights = rounded_block(name)
    tuned = TUNING.tune(block, samples, weights)
    assert tuned.fallbacks == () and set(tuned.weights) == set(weights)
    put_in(block, weights, Tuned({}, {}, 0, 0))
    assert error_of(block, samples) == pytest.approx(tuned.error_before, rel=1e-4)
    put_in(block, weights, tuned)
    assert error_of(block, samples) == pytest.approx(tuned.error_after, rel=1e-4)
    assert tuned.error_after < 0.97 * tuned.error_before


def test_codes_and_bits_stay():
    block, samples, weights = rounded_block()
    tuned = TUNING.tune(block, samples, weights).weights
    for path, before in weights.items():
        assert torch.equal(tuned[path].codes, before.codes)
        assert not torch.equal(tuned[path].dequantize(), before.dequantize())
        assert bits_per_weight(tuned[path].tensors(), 1) == bits_per_weight(before.tensors(), 1)
        again = type(before).restore(tuned[path].tensors(), tuned[path].layout())
        assert torch.equal(again.dequantize(), tuned[path].dequantize())


def test_the_block_and_the_weights_are_left_alone():
    block, samples, weights = rounded_block()
    parameters = {name: value.clone() for name, value in block.module.state_dict().items()}
    values = {path: weight.dequantize() for path, weight in weights.items()}
    TUNING.tune(block, samples, weights)
    assert all(torch.equal(value, parameters[name]) for name, value in block.module.state_dict().items())
    assert all(torch.equal(weight.dequantize(), values[path]) for path, weight in weights.items())
    assert all(parameter.grad is None for parameter in block.module.parameters())


def test_the_same_seed_gives_the_same_answer():
    block, samples, weights = rounded_block()
    first, second, other = (replace(TUNING, seed=seed).tune(block, samples, weights) for seed in (0, 0, 1))
    assert first.error_after == second.error_after != other.error_after
    assert all(
        torch.equal(first.weights[path].dequantize(), second.weights[path].dequantize()) for path in weights
    )


def test_norm_layers_are_trained_only_if_asked_and_nothing_else_ever():
    block, samples, weights = rounded_block("opt")  # its linears have biases, which are vectors too
    norms = {
        f"{norm}.{kind}"
        for norm in ("self_attn_layer_norm", "final_layer_norm")
        for kind in ("weight", "bias")
    }
    assert set(TUNING.tune(block, samples, weights).parameters) == norms
    assert not replace(TUNING, norm_learning_rate=None).tune(block, samples, weights).parameters


def test_an_answer_that_is_no_better_is_undone():
    block, samples, weights = rounded_block()
    wild = replace(TUNING, learning_rate=50.0, steps=3).tune(block, samples, weights)
    assert not wild.weights and not wild.parameters
    assert wild.error_after == wild.error_before and "undone" in wild.fallbacks[0]


def test_weights_without_centroids_stay_and_norms_still_learn():
    block, samples, weights = rounded_block(solver=RTN())
    tuned = TUNING.tune(block, samples, weights)
    assert not tuned.weights and set(tuned.parameters) == {
        "input_layernorm.weight",
        "post_attention_layernorm.weight",
    }
    assert tuned.error_after < tuned.error_before
    nothing = replace(TUNING, norm_learning_rate=None).tune(block, samples, weights)
    assert nothing.fallbacks == ("tuning found nothing to train",)


def test_a_block_in_bfloat16_is_trained_in_float32_and_judged_with_norms_as_stored():
    block, samples, weights = rounded_block(dtype=torch.bfloat16)
    tuned = TUNING.tune(block, samples, weights)
    assert tuned.error_after < tuned.error_before
    assert all(value.dtype is torch.bfloat16 for value in tuned.parameters.values())


def test_gradients_are_those_of_finite_differences():
    weight = SOLVER.solve(
        LayerProblem(
            torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).double(),
            torch.eye(8).double(),
            scheme(bits=2),
        )
    ).weight
    assert isinstance(weight, TunableWeight)
    names, values = zip(*weight.trainable().items(), strict=True)
    inputs = tuple(value.double().requires_grad_() for value in values)

    def decode(*trained: Tensor) -> Tensor:
        return weight.decode(dict(zip(names, trained, strict=True))).sin()

    assert torch.equal(weight.decode(weight.trainable()), weight.dequantize())
    assert torch.autograd.gradcheck(decode, inputs)


def test_the_error_is_the_mean_over_all_samples():
    block, samples, weights = rounded_block()
    state = BlockState.of(block, weights, norms=False)
    uneven = [samples[0], replace(samples[1], hidden=samples[1].hidden[:1], target=samples[1].target[:1])]
    whole = output_error(block, uneven, state.values(state.start()))
    parts = [output_error(block, [sample], state.values(state.start())) for sample in uneven]
    assert whole == pytest.approx((2 * parts[0] + parts[1]) / 3)


def test_every_sample_is_seen_once_a_round():
    draw = shuffled(5, 0)
    rounds = [[next(draw) for _ in range(5)] for _ in range(3)]
    assert all(sorted(numbers) == [0, 1, 2, 3, 4] for numbers in rounds) and rounds[0] != rounds[1]


@pytest.mark.parametrize("field", ["steps", "learning_rate", "norm_learning_rate", "batches_per_step"])
def test_values_out_of_range_are_named(field):
    with pytest.raises(ValueError, match=f"^{field}=0"):
        replace(TUNING, **{field: 0})
