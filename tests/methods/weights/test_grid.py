"""The grid: nearest codes, what is stored is what is solved with, and ranges that earn their search."""

import pytest
import torch

from methods.contracts.problem import Ranges
from methods.contracts.scheme import RangeRule, ZeroPoint
from methods.solving.ranges import find_grid, fit_grid, make_grid
from methods.weights.grid import Grid
from tests.helpers.problems import layer_problem, scheme

FORMS = [
    dict(bits=3),
    dict(bits=4, group_size=16),
    dict(bits=2, symmetric=True),
    dict(bits=3, group_size=32, zero_point=ZeroPoint.float),
    dict(bits=8, range=RangeRule.search),
    dict(bits=3, group_size=16, range=RangeRule.search_hessian),
]


@pytest.fixture(params=FORMS, ids=str)
def problem(request):
    return layer_problem(**request.param)


def test_codes_are_the_nearest(problem):
    grid = find_grid(problem)
    codes = grid.encode(problem.weight)
    levels = torch.stack([grid.decode(torch.full_like(codes, code)) for code in range(grid.max_code + 1)])
    distance = (levels - problem.weight).abs()
    torch.testing.assert_close(
        (grid.decode(codes) - problem.weight).abs(), distance.amin(0), rtol=0, atol=1e-12
    )


def test_grid_points_are_fixed_points(problem):
    grid = find_grid(problem)
    codes = torch.randint(
        grid.max_code + 1, problem.weight.shape, generator=torch.Generator().manual_seed(3)
    ).to(torch.uint8)
    assert torch.equal(grid.encode(grid.decode(codes)), codes)


def test_storage_round_trip(problem):
    grid = find_grid(problem)
    restored = Grid.restore(grid.tensors(), grid.layout(), *problem.weight.shape)
    codes = grid.encode(problem.weight)
    assert torch.equal(restored.decode(codes), grid.decode(codes))


def test_permuted_columns_keep_their_groups(problem):
    grid, order = (
        find_grid(problem),
        torch.randperm(problem.weight.shape[1], generator=torch.Generator().manual_seed(1)),
    )
    permuted = grid.columns(order)
    assert torch.equal(permuted.encode(problem.weight[:, order]), grid.encode(problem.weight)[:, order])
    restored = Grid.restore(permuted.tensors(), permuted.layout(), *problem.weight.shape)
    assert torch.equal(restored.group_index, permuted.group_index)


def test_ties_go_to_the_even_code():
    grid = make_grid(torch.zeros(1, 1), torch.full((1, 1), 3.0), scheme(bits=2), 4)
    assert grid.encode(torch.tensor([[0.5, 1.5, 2.5, 9.0]])).tolist() == [[0, 2, 2, 3]]


@pytest.mark.parametrize("zero_point", ZeroPoint)
def test_search_beats_minmax_on_heavy_tails(zero_point):
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 3
    lost = [(fit_grid(weight, scheme(zero_point=zero_point, range=rule)).round(weight) - weight).abs().pow(2.25).sum(1)  # noqa: E501
            for rule in (RangeRule.minmax, RangeRule.search)]  # fmt: skip
    assert (lost[1] <= lost[0] * (1 + 1e-9)).all() and lost[1].sum() < 0.95 * lost[0].sum()


def test_learned_ranges_win_over_the_rule():
    problem = layer_problem(group_size=16)
    low, high = torch.full((24, 4), -0.1, dtype=torch.float64), torch.full((24, 4), 0.1, dtype=torch.float64)
    learned = find_grid(type(problem)(problem.weight, problem.hessian, problem.scheme, Ranges(low, high)))
    torch.testing.assert_close(learned.scale, torch.full_like(low, 0.2 / 7), rtol=1e-3, atol=0)


@pytest.mark.parametrize("value", [0.0, 3.0, -1e-30, 1e30])
def test_constant_rows(value):
    weight = torch.full((2, 8), value)
    for form in (dict(bits=3), dict(bits=3, zero_point=ZeroPoint.float)):
        assert torch.isfinite(fit_grid(weight, scheme(**form)).round(weight)).all()
