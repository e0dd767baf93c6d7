"""SpQR against a textbook with an explicit inverse, its reductions, and the threshold that it solves for."""

import math
from dataclasses import replace

import pytest
import torch

from methods.contracts.problem import Ranges
from methods.contracts.scheme import OutlierStructure, RangeRule, ZeroPoint
from methods.gptq import GPTQ
from methods.solving.linalg import layer_error, upper_factor
from methods.solving.ranges import find_grid, fit_grid
from methods.spqr import Pass, SpQR, leave_one_out, without
from tests.helpers.oracles import textbook_spqr
from tests.helpers.problems import layer_problem, scheme

SPQR = SpQR(damping=0.01, act_order=True, passes=12, tolerance=0.02, block_size=16)
PLAIN_ORDER = replace(SPQR, act_order=False)


@pytest.mark.parametrize(
    "form", [dict(), dict(scale_bits=3, zero_point=ZeroPoint.float), dict(range=RangeRule.search)], ids=str
)
@pytest.mark.parametrize("threshold", [4e-5, 1e-4])
def test_a_pass_equals_the_textbook(form, threshold):
    problem = layer_problem(rows=40, group_size=16, **form)

    def fit(group, prices):
        return fit_grid(
            without(group, leave_one_out(group, problem.scheme, prices) > threshold), problem.scheme
        )

    expected, kept = textbook_spqr(problem.weight, problem.hessian, problem.scheme, 0.01, threshold, fit)
    found = Pass(problem, slice(None), upper_factor(problem.hessian, 0.01).upper, 16).run(threshold)
    assert 0 < kept.sum() < kept.numel() / 2
    assert torch.equal(found[2], kept)
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-9)


def test_leave_one_out_is_what_refitting_without_each_weight_gains():
    generator = torch.Generator().manual_seed(0)
    group = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    prices = torch.rand(8, generator=generator, dtype=torch.float64)
    for form in (scheme(), scheme(zero_point=ZeroPoint.float), scheme(symmetric=True)):

        def lost(columns, of, form=form):
            grid = fit_grid(group[:, of], form)
            return ((grid.round(group[:, of]) - group[:, of]) ** 2 * prices[of]).sum(1)

        everything = list(range(8))
        expected = torch.stack(
            [lost(8, everything) - lost(7, [k for k in everything if k != j]) for j in everything], 1
        )
        torch.testing.assert_close(leave_one_out(group, form, prices), expected)


def test_likely_outliers_do_not_widen_the_grid():
    group = torch.tensor([[0.1, -0.1, 9.0, 0.0], [1.0, 2, 3, 4]])
    left = without(group, torch.tensor([[False, False, True, False], [True] * 4]))
    assert torch.allclose(left, torch.tensor([[0.1, -0.1, 0.0, 0.0], [1.0, 2, 3, 4]]))


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("group_size", [None, 16])
def test_without_outliers_and_with_plain_scales_it_is_gptq(act_order, group_size):
    problem = layer_problem(group_size=group_size, bits=2)
    gptq = GPTQ(damping=0.01, block_size=16, act_order=act_order, static_groups=False)
    ours = replace(SPQR, act_order=act_order).solve(problem).weight
    assert torch.equal(ours.dequantize(), gptq.solve(problem).weight.dequantize())


@pytest.mark.parametrize("ratio", [0.005, 0.01, 0.02, 0.05])
def test_the_share_of_outliers_is_what_was_asked_for(ratio):
    problem = layer_problem(rows=64, columns=96, group_size=16, outlier_ratio=ratio)
    solution = SPQR.solve(problem)
    assert 0.93 * ratio <= solution.stats["outliers"] <= round(ratio * 6144) / 6144
    assert not solution.fallbacks


def test_more_outliers_less_error():
    problem = layer_problem(rows=64, columns=96, group_size=16, bits=3)
    errors = []
    for ratio in (0.0, 0.01, 0.05):
        weight = SPQR.solve(replace(problem, scheme=replace(problem.scheme, outlier_ratio=ratio))).weight
        errors.append(layer_error(problem.weight, weight.dequantize(), problem.hessian))
    assert errors[2] < errors[1] < errors[0]


def test_a_planted_outlier_is_found():
    problem = layer_problem(rows=32, columns=64, group_size=16, outlier_ratio=1 / 2048)
    weight = problem.weight.clone()
    weight[7, 20] = 3.0  # sixty times its neighbours
    found = PLAIN_ORDER.solve(replace(problem, weight=weight)).weight
    assert found.positions.tolist() == [7 * 64 + 20]
    assert found.dequantize()[7, 20].item() == pytest.approx(3.0, rel=0.01)


def test_a_layer_without_errors_keeps_no_outliers():
    problem = layer_problem(rows=16, columns=32, bits=4, outlier_ratio=0.01)
    codes = torch.randint(0, 16, problem.weight.shape, generator=torch.Generator().manual_seed(1))
    codes[:, 0], codes[:, 1] = 0, 15
    weight = find_grid(problem).decode(codes)
    solution = SPQR.solve(replace(problem, weight=weight))
    torch.testing.assert_close(solution.weight.dequantize(), weight, rtol=1e-6, atol=1e-9)


def test_learned_ranges_are_kept():
    problem = layer_problem(group_size=16, outlier_ratio=0.02)
    low, high = torch.full((24, 4), -0.1, dtype=torch.float64), torch.full((24, 4), 0.1, dtype=torch.float64)
    learned = replace(problem, ranges=Ranges(low, high))
    grid = SPQR.solve(learned).weight.base.grid
    assert torch.allclose(grid.scale, find_grid(learned).scale)


def test_columns_are_refused_and_bad_fields_named():
    assert "outlier_structure" in SPQR.skip_reason(
        scheme(outlier_ratio=0.01, outlier_structure=OutlierStructure.column)
    )
    for field in (dict(damping=-1), dict(passes=1), dict(tolerance=0), dict(block_size=0)):
        with pytest.raises(ValueError, match=next(iter(field))):
            replace(SPQR, **field)


def test_infinite_threshold_keeps_nothing():
    problem = layer_problem(group_size=16)
    assert (
        not Pass(problem, slice(None), upper_factor(problem.hessian, 0.01).upper, 16).run(math.inf)[2].any()
    )
