"""OmniQuant and AffineQuant on blocks of tiny models: what they start from, reduce to, keep and undo."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from harness.models import tiny
from harness.models.families import family_of
from harness.quantization.blocks import ModelBlocks
from methods.affinequant import AffineQuant, RotatedMatrices
from methods.blocks.activations import quantized_activations
from methods.blocks.affine_norm import AffineNorm
from methods.blocks.training import loop
from methods.blocks.training.learned_transform import Shift
from methods.contracts.problem import LayerProblem
from methods.contracts.seams import NormSeam
from methods.contracts.tuning import Sample
from methods.omniquant import OmniQuant
from methods.rtn import RTN
from methods.solving.ranges import extremes, grouped
from tests.helpers.problems import scheme
from tests.helpers.tiny_models import tokens

COURSE = dict(alpha=0.5, epochs=3, matrix_rate=0.01, clip_rate=0.02, final_rate=0.5, auxiliary_loss=False)
OMNI = OmniQuant(equivalent=True, shift=Shift.foldable, **COURSE)
AFFINE = AffineQuant(
    stability=0.2,
    merge_only=False,
    rotated_matrices=RotatedMatrices.commuting,
    shift=Shift.everywhere,
    **COURSE,
)
MERGED = replace(AFFINE, merge_only=True, shift=Shift.foldable)
W3, W4A4 = scheme(bits=3), scheme(bits=4, act_bits=4)


def lesson(family: str):
    """The second block of a tiny model, with three channels that stand out behind its norms, and three
    samples of two windows.
    """
    model, _ = tiny.tiny_model(family)
    source = ModelBlocks(model, family_of(model.config))
    samples, (first, block, *_) = [], list(source)
    with torch.no_grad():
        for seam in block.seams:
            if isinstance(seam, NormSeam):
                block.module.get_submodule(seam.norm).weight[:3] *= 15
        for entry in source.capture(tokens(6, 32), 2):
            hidden = first.run(entry.hidden, entry.calls[0])
            samples.append(Sample(hidden, entry.calls[1], block.run(hidden, entry.calls[1])))
    return block, samples


@torch.no_grad()
def output_error(block, samples) -> float:
    wrong = sum(
        (block.run(sample.hidden, sample.call) - sample.target).double().square().sum() for sample in samples
    )
    return (wrong / sum((sample.target - sample.hidden).double().square().sum() for sample in samples)).item()


def silent(done, total, text):
    pass


def learned(transform, family, of_scheme):
    block, samples = lesson(family)
    block = replace(block, module=deepcopy(block.module))
    return block, samples, transform.apply_(block, samples, of_scheme, silent)


def rounded_error(block, samples, ranges, of_scheme) -> float:
    for path in block.linears:
        linear = block.module.get_submodule(path)
        problem = LayerProblem(linear.weight, torch.eye(linear.weight.shape[1]), of_scheme, ranges.get(path))
        linear.weight.copy_(RTN().solve(problem).weight.dequantize())
    with quantized_activations(block, of_scheme):
        return output_error(block, samples)


@pytest.mark.parametrize("transform", [OMNI, AFFINE, MERGED], ids=["omniquant", "affinequant", "merge_only"])
@pytest.mark.parametrize(
    "family, of_scheme", [("llama", W3), ("llama", W4A4), ("qwen3", W4A4), ("opt", W3), ("falcon_old", W3)]
)
def test_the_function_stays_and_the_rounded_block_comes_closer(transform, family, of_scheme):
    block, samples = lesson(family)
    plain = rounded_error(replace(block, module=deepcopy(block.module)), samples, {}, of_scheme)
    block, samples, found = learned(transform, family, of_scheme)
    assert not found.fallbacks
    assert output_error(block, samples) < 1e-10, "float activations and weights: the same function"
    assert found.stats["loss_after"] < found.stats["loss_before"]
    assert rounded_error(block, samples, found.ranges, of_scheme) < 0.95 * plain


def test_without_off_diagonals_affinequant_is_omniquants_scaling():
    for of_scheme in (W3, W4A4):
        _, _, omni = learned(replace(OMNI, epochs=2), "llama", of_scheme)
        diagonal = replace(MERGED, epochs=2, stability=0.0)
        _, _, affine = learned(diagonal, "llama", of_scheme)
        assert affine.stats["loss_after"] == pytest.approx(omni.stats["loss_after"], rel=1e-5)
        for path, ranges in omni.ranges.items():
            torch.testing.assert_close(affine.ranges[path].low, ranges.low, rtol=1e-3, atol=1e-5)


def test_zero_epochs_leave_the_start():
    """Clipping alone, no smoothing: the block as it is, and ranges that are sigmoid(4) of the extremes."""
    block, _ = lesson("llama")
    after, _, found = learned(replace(OMNI, epochs=0, alpha=None), "llama", W3)
    for name, parameter in block.module.named_parameters():
        assert torch.equal(parameter, after.module.get_parameter(name)), name
    weight = block.module.self_attn.q_proj.weight
    low, high = extremes(grouped(weight, W3), W3)
    share = torch.sigmoid(torch.tensor(4.0))
    torch.testing.assert_close(found.ranges["self_attn.q_proj"].low, share * low)
    torch.testing.assert_close(found.ranges["self_attn.q_proj"].high, share * high)


def test_what_runs_beside_the_weights():
    """Full matrices stay behind norms with float activations; with 4-bit ones, and with merge_only, nothing
    is left to run.
    """
    block, _, found = learned(AFFINE, "llama", W3)
    maps = [module for module in block.module.modules() if isinstance(module, AffineNorm)]
    assert [module.multiply_adds() for module in maps] == [64 * 64] * 2
    assert all(module.inverse.dtype == torch.float16 for module in maps)
    assert found.stats["margin"] < 1 < found.stats["condition"]
    for transform, of_scheme in ((MERGED, W3), (replace(AFFINE, shift=Shift.none), W4A4), (OMNI, W4A4)):
        block, _, _ = learned(transform, "llama", of_scheme)
        assert not any(isinstance(module, AffineNorm) for module in block.module.modules())
        assert all(block.module.get_submodule(path).bias is None for path in block.linears)


def test_the_same_block_gives_the_same_answer():
    (one, _, first), (two, _, second) = (learned(AFFINE, "llama", W4A4) for _ in range(2))
    assert first.stats["loss_after"] == second.stats["loss_after"]
    assert all(
        torch.equal(a, b) for a, b in zip(one.module.parameters(), two.module.parameters(), strict=True)
    )


def test_a_loss_that_is_not_finite_goes_back_with_half_the_rates(monkeypatch):
    original, calls = loop.Lesson.loss, []

    def failing(self, *arguments):
        calls.append(len(calls))
        loss = original(self, *arguments)
        # 2 plain ones, 3 of the start, then the fifth step: epoch 2
        return loss * float("nan") if len(calls) == 10 else loss

    monkeypatch.setattr(loop.Lesson, "loss", failing)
    _, _, found = learned(AFFINE, "llama", W3)
    assert [
        fallback for fallback in found.fallbacks if "epoch 2" in fallback and "0.5 of the rates" in fallback
    ] == list(found.fallbacks)
    assert found.stats["loss_after"] < found.stats["loss_before"]


def test_hopeless_training_ends_at_its_start_and_never_in_nan(monkeypatch):
    block, samples = lesson("llama")
    before = {name: value.clone() for name, value in block.module.named_parameters()}
    broken = [replace(sample, target=sample.target * float("inf")) for sample in samples]
    found = replace(AFFINE, alpha=None).apply_(block, broken, W3, silent)
    assert len(found.fallbacks) >= loop.ROLLBACKS and "undone" in found.fallbacks[-1]
    assert all(torch.equal(value, block.module.get_parameter(name)) for name, value in before.items())


def test_rates_that_are_far_too_large_are_undone_or_rolled_back():
    block, _, found = learned(replace(AFFINE, matrix_rate=50.0, final_rate=1.0), "llama", W3)
    assert found.fallbacks
    assert all(parameter.isfinite().all() for parameter in block.module.parameters())


def test_the_auxiliary_loss_pulls_towards_the_blocks_own_output():
    block, samples = lesson("llama")
    odd = [replace(sample, own_target=sample.target + 0.1) for sample in samples]
    with_it, without = (
        replace(AFFINE, auxiliary_loss=auxiliary).apply_(
            replace(block, module=deepcopy(block.module)), odd, W3, silent
        )
        for auxiliary in (True, False)
    )
    assert with_it.stats["loss_after"] > without.stats["loss_after"]


def test_full_matrices_before_rotations_are_refused():
    block, _ = lesson("llama")
    general = replace(AFFINE, rotated_matrices=RotatedMatrices.full)
    assert "RoPE" in general.skip_reason(W4A4, block.seams)
    assert general.skip_reason(W3, block.seams) is None, "nothing stands between float queries and keys"
    assert general.skip_reason(W4A4, lesson("opt")[0].seams) is None


@pytest.mark.parametrize(
    "wrong", [{"alpha": 1.5}, {"epochs": -1}, {"clip_rate": 0.0}, {"final_rate": 0.0}, {"stability": 2.0}]
)
def test_fields_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(AFFINE, **wrong)


def test_merging_everything_and_shifting_everywhere_exclude_each_other():
    with pytest.raises(ValueError, match="foldable"):
        replace(AFFINE, merge_only=True)
