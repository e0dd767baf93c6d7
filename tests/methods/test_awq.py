"""AWQ: the search against trying every ratio by hand, clipping against sums over tokens, and the ways to
switch it off.
"""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from methods.awq import AWQ, readers, scales_of
from methods.blocks.activations import quantized_activations
from methods.blocks.clip_search import clipped, group_costs, rows_of_queries_and_keys
from methods.blocks.functional import values_of
from methods.blocks.input_statistics import first
from methods.contracts.block import Block
from methods.contracts.problem import LayerProblem
from methods.contracts.scheme import RangeRule, ZeroPoint
from methods.contracts.seams import MiddleSeam, NormSeam, Seam, ValueSeam
from methods.contracts.tuning import Sample
from methods.rtn import RTN
from methods.solving.ranges import fit_ranges
from tests.helpers.block_samples import change, inputs_of, samples_of, uneven_block
from tests.helpers.problems import scheme

SCALES = AWQ(points=20, search_tokens=10**6, clip=False, clip_steps=10, clip_floor=0.5)
CLIPS = replace(SCALES, points=1, clip=True)
SHARES = [1 - 0.05 * step for step in range(10)]


def nothing(done: int, total: int, note: str) -> None:
    pass


def nearest(weight: Tensor, bits: int, cut: float = 1.0) -> Tensor:
    """Asymmetric min-max rounding of whole rows with a float16 scale and an integer zero point, float64, row
    by row.

    Args:
        cut: the share of the largest |w| beyond which there is no grid.
    """
    rows = []
    for row in weight.double():
        most = cut * row.abs().max().item()
        low, high = max(min(row.min().item(), 0.0), -most), min(max(row.max().item(), 0.0), most)
        scale = torch.tensor((high - low) / (2**bits - 1)).half().double()
        zero = torch.round(-low / scale).clamp(0, 2**bits - 1)
        rows.append((torch.round(row / scale + zero).clamp(0, 2**bits - 1) - zero) * scale)
    return torch.stack(rows)


def columns_scaled_alike(seam: Seam, sizes: Tensor, ratio: float) -> Tensor:
    """s of every input channel of the seam's readers, entry by entry."""
    if isinstance(seam, ValueSeam):
        heads, shared = seam.value.count, seam.query_heads // seam.value.count
        table = sizes.view(heads, shared, seam.value.size)
        sizes = torch.stack(
            [sum(table[head, query] for query in range(shared)) / shared for head in range(heads)]
        )
    powers = [size**ratio for size in sizes.flatten().tolist()]
    scales = torch.tensor(
        [power / (max(powers) * min(powers)) ** 0.5 for power in powers], dtype=torch.float64
    )
    if isinstance(seam, ValueSeam):
        scales = scales.view(heads, 1, -1).expand(heads, shared, -1).flatten()
    return scales


@torch.no_grad()
def by_hand(block: Block, seam: Seam, samples: list[Sample], bits: int) -> list[float]:
    """The relative error of the block's output for every ratio: weights scaled, rounded and scaled back,
    nothing else touched.
    """
    sizes = inputs_of(block, samples, readers(seam)[0]).abs().mean(0)
    losses = []
    for point in range(20):
        scales, trial = (
            columns_scaled_alike(seam, sizes, point / 20),
            replace(block, module=deepcopy(block.module)),
        )
        for path in readers(seam):
            weight = trial.module.get_submodule(path).weight
            weight.copy_(nearest((weight.double() * scales).float(), bits) / scales)
        errors = [(trial.run(s.hidden, s.call).double() - s.target.double()).square().sum() for s in samples]
        losses.append((sum(errors) / sum(s.target.double().square().sum() for s in samples)).item())
    return losses


@pytest.mark.parametrize("variant, bits", [("llama", 3), ("opt", 2), ("falcon_one_norm", 3)])
def test_the_best_of_all_ratios_is_found(variant, bits):
    block, samples = uneven_block(variant)
    searched = [seam for seam in block.seams if readers(seam)]
    assert {type(seam) for seam in searched} >= {NormSeam, ValueSeam} | (
        {MiddleSeam} if variant in ("llama", "opt") else set()
    )
    ratios = []
    for seam in searched:
        sizes = inputs_of(block, samples, readers(seam)[0]).abs().mean(0).float()
        found, losses = (
            SCALES.search(block, seam, sizes, samples, scheme(bits=bits)),
            by_hand(block, seam, samples, bits),
        )
        assert found.loss_before == pytest.approx(losses[0], rel=1e-3)
        assert found.loss_after == pytest.approx(min(losses), rel=1e-3)
        assert losses[round(20 * found.ratio)] == pytest.approx(min(losses), rel=1e-3)
        ratios.append(found.ratio)
    assert max(ratios) > 0


@pytest.mark.parametrize("variant", ["llama", "opt", "falcon_one_norm"])
def test_what_is_found_stays_in_the_block_and_changes_nothing(variant):
    block, samples = uneven_block(variant)
    expected, watched = [], []
    twin = replace(block, module=deepcopy(block.module))
    # one after another, each with the earlier ones in place
    for seam in (seam for seam in twin.seams if readers(seam)):
        sizes = inputs_of(twin, samples, readers(seam)[0]).abs().mean(0).float()
        expected.append(replace(SCALES, points=4).search(twin, seam, sizes, samples, scheme(bits=2)))
        scale_by_hand(twin, seam, columns_scaled_alike(seam, sizes, expected[-1].ratio))
    awq = replace(SCALES, points=4)
    transformed = awq.apply_(block, samples, scheme(bits=2), lambda *seen: watched.append(seen[:2]))
    for name, value in values_of(block).items():
        torch.testing.assert_close(value, values_of(twin)[name], rtol=1e-4, atol=1e-6)
    assert change(block, samples) < 1e-5
    assert (
        transformed.stats["ratio"] == pytest.approx(sum(found.ratio for found in expected) / len(expected))
        and not transformed.ranges
    )
    assert transformed.stats["loss_after"] < transformed.stats["loss_before"]
    assert watched == [(4 * done, 4 * len(expected)) for done in range(1, len(expected) + 1)]


@torch.no_grad()
def scale_by_hand(block: Block, seam: Seam, scales: Tensor) -> None:
    at = block.module.get_submodule
    for path in readers(seam):
        at(path).weight.mul_(scales)
    if isinstance(seam, NormSeam):
        at(seam.norm).weight.div_(scales)
        if seam.has_bias:
            at(seam.norm).bias.div_(scales)
        return
    linear = at(seam.up if isinstance(seam, MiddleSeam) else seam.value.linear)
    rows = torch.arange(seam.width) if isinstance(seam, MiddleSeam) else seam.value.rows.flatten()
    if isinstance(seam, ValueSeam):
        scales = scales.view(seam.value.count, -1, seam.value.size)[:, 0].flatten()
    for row, scale in zip(rows.tolist(), scales.tolist(), strict=True):
        linear.weight[row] /= scale
        if linear.bias is not None:
            linear.bias[row] /= scale


def test_ratio_0_alone_is_rounding_to_nearest_bit_for_bit():
    block, samples = uneven_block("qwen2")
    before = {name: value.clone() for name, value in values_of(block).items()}
    transformed = replace(SCALES, points=1).apply_(block, samples, scheme(bits=2), nothing)
    assert (
        all(torch.equal(value, before[name]) for name, value in values_of(block).items())
        and not transformed.ranges
    )
    for path in block.linears:
        problem = LayerProblem(
            before[f"{path}.weight"], torch.eye(block.module.get_submodule(path).in_features), scheme(bits=2)
        )
        after = replace(
            problem,
            weight=block.module.get_submodule(path).weight.detach(),
            ranges=transformed.ranges.get(path),
        )
        assert torch.equal(RTN().solve(after).weight.dequantize(), RTN().solve(problem).weight.dequantize())


def test_activations_are_rounded_during_the_search():
    block, samples = uneven_block("llama")
    seam, low = block.seams[0], scheme(bits=4, act_bits=3)
    sizes = inputs_of(block, samples, seam.consumers[0]).abs().mean(0).float()
    found = SCALES.search(block, seam, sizes, samples, low)
    trial = replace(block, module=deepcopy(block.module))
    with torch.no_grad(), quantized_activations(trial, low):
        for path in seam.consumers:
            trial.module.get_submodule(path).weight.copy_(nearest(trial.module.get_submodule(path).weight, 4))
        errors = [(trial.run(s.hidden, s.call).double() - s.target.double()).square().sum() for s in samples]
    assert found.loss_before == pytest.approx(
        (sum(errors) / sum(s.target.double().square().sum() for s in samples)).item(), rel=1e-3
    )
    assert found.loss_before > 1.5 * SCALES.search(block, seam, sizes, samples, scheme(bits=4)).loss_before


def test_dead_and_equal_channels():
    sizes = torch.tensor([4.0, 0.0, 1.0, 0.25])
    assert scales_of(sizes, 0.5).tolist() == pytest.approx([2.0, 1.0, 1.0, 0.5])
    assert torch.equal(scales_of(torch.full((3,), 7.0), 0.3), torch.ones(3)) and torch.equal(
        scales_of(torch.zeros(3), 0.3), torch.ones(3)
    )
    assert torch.equal(scales_of(sizes, 0.0), torch.ones(4))
    block, _ = uneven_block("llama")
    block.module.input_layernorm.weight.data[5] = 0
    samples = samples_of(block, "llama")
    replace(CLIPS, points=4).apply_(block, samples, scheme(bits=3), nothing)
    assert (
        all(value.isfinite().all() for value in values_of(block).values()) and change(block, samples) < 1e-5
    )


def test_only_the_first_samples_are_searched():
    """And channel sizes are of all of them."""
    for tokens, expected in ((112, 1), (113, 2)):  # batches of 2 x 56 tokens
        block, samples = uneven_block("llama")
        spoilt = [
            *samples[:expected],
            *(replace(sample, target=sample.target * torch.nan) for sample in samples[expected:]),
        ]
        stats = (
            replace(SCALES, points=4, search_tokens=tokens)
            .apply_(block, spoilt, scheme(bits=2), nothing)
            .stats
        )
        fresh, _ = uneven_block("llama")
        losses = losses_seam_by_seam(fresh, first(fresh, samples, tokens), samples)
        assert stats["loss_after"] == pytest.approx(sum(losses) / 4, rel=1e-3)


def losses_seam_by_seam(block: Block, few: list[Sample], samples: list[Sample]) -> list[float]:
    """With 4 ratios at 2 bits, searched on a few samples; sizes of channels are of all of them."""
    losses = []
    for seam in (seam for seam in block.seams if readers(seam)):
        sizes = inputs_of(block, samples, readers(seam)[0]).abs().mean(0).float()
        found = replace(SCALES, points=4).search(block, seam, sizes, few, scheme(bits=2))
        scale_by_hand(block, seam, columns_scaled_alike(seam, sizes, found.ratio))
        losses.append(found.loss_after)
    return losses


# --- clipping
# ----------------------------------------------------------------------------------------------------


def problem(rows: int = 5, columns: int = 16, groups: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """A weight with a few large entries, inputs (tokens, columns), and their moments by group."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator) ** 3
    inputs = torch.randn(40, columns, generator=generator) * torch.rand(columns, generator=generator)
    parts = inputs.view(40, groups, -1).transpose(0, 1)
    return weight, inputs, parts.mT @ parts / 40


def test_each_row_and_group_is_cut_where_its_output_errs_least():
    weight, inputs, moments = problem()
    found = clipped(weight, moments, scheme(bits=2, group_size=8), SHARES)
    chosen = set()
    for row in range(5):
        for group in range(2):
            part, seen = weight[row, 8 * group :][:8].double(), inputs[:, 8 * group :][:, :8].double()
            costs = {
                share: (seen @ (nearest(part[None], 2, share)[0] - part)).square().sum().item()
                for share in SHARES
            }
            best = min(costs, key=costs.get)
            cut = best * part.abs().max().item()
            assert found.low[row, group].item() == pytest.approx(
                max(min([*part.tolist(), 0.0]), -cut), rel=1e-6
            )
            assert found.high[row, group].item() == pytest.approx(
                min(max([*part.tolist(), 0.0]), cut), rel=1e-6
            )
            chosen.add(best)
    assert len(chosen) > 3


@pytest.mark.parametrize(
    "fields",
    [
        dict(bits=3),
        dict(bits=2, group_size=8, symmetric=True),
        dict(bits=3, group_size=4, scale_bits=3),
        dict(bits=2, group_size=8, zero_point=ZeroPoint.float),
    ],
    ids=str,
)
def test_no_layer_ends_worse_than_min_max(fields):
    of = scheme(**fields)
    weight, _, moments = problem(rows=24, groups=16 // (of.group_size or 16))
    found = clipped(weight, moments, of, SHARES)
    before, after = (group_costs(weight, ends, moments, of) for ends in (fit_ranges(weight, of), found))
    assert after.sum() < before.sum()
    assert of.scale_bits or (after <= before).all()


def test_the_schemes_rule_competes_with_the_shares():
    """At 2 bits per channel a search over all ranges goes below AWQ's least share of 0.55; no group may lose
    by clipping.
    """
    weight, _, moments = problem(rows=24, columns=64, groups=1)
    for rule in (RangeRule.search, RangeRule.search_hessian):
        of = scheme(bits=2, range=rule)
        diagonal = torch.diagonal(moments[0]) if rule is RangeRule.search_hessian else None
        own, found = fit_ranges(weight, of, diagonal), clipped(weight, moments, of, SHARES)
        costs = [
            group_costs(weight, ends, moments, of)
            for ends in (own, clipped(weight, moments, scheme(bits=2), SHARES), found)
        ]
        torch.testing.assert_close(costs[2], torch.minimum(costs[0], costs[1]))
        assert (costs[2] < costs[0]).any() and (costs[2] < costs[1]).any()


def test_queries_and_keys_keep_the_schemes_rule():
    block, samples = uneven_block("llama")
    ranges = CLIPS.apply_(block, samples, scheme(bits=2), nothing).ranges
    assert set(ranges) == set(block.linears) - {"self_attn.q_proj", "self_attn.k_proj"}
    for variant, rule in (("bloom", RangeRule.minmax), ("falcon_new", RangeRule.search_hessian)):  # fused
        block, samples = uneven_block(variant)
        of = scheme(bits=2, range=rule)
        path = "self_attention.query_key_value"
        found, rows = (
            CLIPS.apply_(block, samples, of, nothing).ranges[path],
            rows_of_queries_and_keys(block)[path],
        )
        weight, inputs = block.module.get_submodule(path).weight.detach(), inputs_of(block, samples, path)
        own = fit_ranges(
            weight, of, inputs.square().mean(0).float() if rule is RangeRule.search_hessian else None
        )
        torch.testing.assert_close(found.low[rows], own.low[rows])
        torch.testing.assert_close(found.high[rows], own.high[rows])
        values = next(seam.value.rows.flatten() for seam in block.seams if isinstance(seam, ValueSeam))
        assert sorted([*rows.tolist(), *values.tolist()]) == list(range(len(weight)))
        plain = fit_ranges(weight, replace(of, range=RangeRule.minmax))
        assert (found.high[values] - found.low[values] < 0.99 * (plain.high - plain.low)[values]).any()


def test_clipping_uses_the_scaled_weights_and_inputs():
    block, samples = uneven_block("llama")
    of = scheme(bits=2, group_size=16)
    ranges = replace(CLIPS, points=4).apply_(block, samples, of, nothing).ranges
    path = "mlp.up_proj"
    weight, inputs = block.module.get_submodule(path).weight.detach(), inputs_of(block, samples, path)
    parts = inputs.view(len(inputs), -1, 16).transpose(0, 1)
    expected = clipped(weight, (parts.mT @ parts / len(inputs)).float(), of, SHARES)
    same = (ranges[path].low == expected.low) & (ranges[path].high == expected.high)
    assert same.float().mean() > 0.99  # the sums run in another order: a tie may fall otherwise


def test_rounding_with_the_ranges_errs_less():
    block, samples = uneven_block("llama")
    inputs = inputs_of(block, samples, "mlp.down_proj")
    hessian = (inputs.T @ inputs / len(inputs)).float()
    ranges = CLIPS.apply_(block, samples, scheme(bits=2), nothing).ranges["mlp.down_proj"]
    plain = LayerProblem(block.module.mlp.down_proj.weight.detach(), hessian, scheme(bits=2))
    errors = [
        (RTN().solve(p).weight.dequantize() - p.weight).double()
        for p in (plain, replace(plain, ranges=ranges))
    ]
    before, after = (((error @ hessian.double()) * error).sum() for error in errors)
    assert after < 0.95 * before


# --- what it refuses
# ---------------------------------------------------------------------------------------------


def test_a_block_without_seams_is_refused():
    block, _ = uneven_block("llama")
    assert SCALES.skip_reason(scheme(), block.seams) is None
    assert "seams" in SCALES.skip_reason(scheme(), ())
    assert SCALES.skip_reason(scheme(), block.seams[1:2])  # queries and keys alone


@pytest.mark.parametrize(
    "field, value",
    [("points", 0), ("search_tokens", 0), ("clip_steps", 0), ("clip_floor", 1.0), ("clip_floor", -0.1)],
)
def test_values_out_of_range_are_named(field, value):
    with pytest.raises(ValueError, match=f"^{field}={value}"):
        replace(SCALES, **{field: value})
