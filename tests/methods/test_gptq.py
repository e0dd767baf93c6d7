"""GPTQ against optimal brain quantization written out, and what must hold whatever the data."""

from dataclasses import replace

import pytest
import torch

from methods.contracts.problem import LayerProblem
from methods.contracts.scheme import RangeRule, ZeroPoint
from methods.gptq import GPTQ
from methods.rtn import RTN
from methods.solving.linalg import layer_error, upper_factor
from methods.solving.ranges import find_grid, fit_grid
from tests.helpers.oracles import least_error_codes, textbook_gptq
from tests.helpers.problems import correlated_hessian, layer_problem

PLAIN = GPTQ(damping=0.01, block_size=16, act_order=False, static_groups=True)
ORDERED = replace(PLAIN, act_order=True)
DYNAMIC = replace(PLAIN, static_groups=False)


def codes(solver, problem):
    return solver.solve(problem).weight.codes


@pytest.mark.parametrize(
    "form",
    [dict(), dict(group_size=16), dict(bits=2, range=RangeRule.search), dict(zero_point=ZeroPoint.float)],
    ids=str,
)
def test_equals_the_textbook(form):
    problem = layer_problem(**form)
    grid = find_grid(problem)
    expected = textbook_gptq(problem.weight, problem.hessian, grid, 0.01)
    assert torch.equal(codes(PLAIN, problem), grid.encode(expected))


@pytest.mark.parametrize("group_size", [None, 16])
def test_act_order_is_the_textbook_on_sorted_columns(group_size):
    problem = layer_problem(group_size=group_size)
    order = torch.argsort(problem.hessian.diagonal(), descending=True, stable=True)
    grid = find_grid(problem)
    expected = textbook_gptq(
        problem.weight[:, order], problem.hessian[order][:, order], grid.columns(order), 0.01
    )
    assert torch.equal(codes(ORDERED, problem)[:, order], grid.columns(order).encode(expected))


@pytest.mark.parametrize("block_size", [5, 16, 64])
def test_dynamic_groups_fit_what_is_left_to_round(block_size):
    problem = layer_problem(group_size=16)
    hessian = problem.hessian + 0.01 * problem.hessian.diagonal().mean() * torch.eye(64, dtype=torch.float64)
    running, found = problem.weight.clone(), replace(DYNAMIC, block_size=block_size).solve(problem).weight
    for first in range(0, 64, 16):  # the textbook, its grids fitted as each group begins
        grid = fit_grid(running[:, first : first + 16], problem.scheme)
        torch.testing.assert_close(found.grid.scale[:, first // 16], grid.scale[:, 0])
        for j in range(first, first + 16):
            inverse = torch.linalg.inv(hessian[j:, j:])
            rounded = grid.columns(slice(0, 1)).round(running[:, j : j + 1]).squeeze(1)
            assert torch.equal(
                found.codes[:, j], grid.columns(slice(0, 1)).encode(running[:, j : j + 1]).squeeze(1)
            )
            running[:, j:] += torch.outer(rounded - running[:, j], inverse[0] / inverse[0, 0])


def test_dynamic_groups_in_act_order_store_their_index():
    weight = replace(DYNAMIC, act_order=True).solve(layer_problem(group_size=16)).weight
    assert "group_index" in weight.tensors()
    assert "group_index" not in ORDERED.solve(layer_problem(group_size=16)).weight.tensors()


@pytest.mark.parametrize("solver", [PLAIN, ORDERED, DYNAMIC])
def test_uncorrelated_inputs_leave_nothing_to_compensate(solver):
    problem = layer_problem(group_size=16)
    problem = replace(problem, hessian=torch.eye(64, dtype=torch.float64))
    assert torch.equal(codes(solver, problem), codes(RTN(), problem))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scale_of_the_hessian_cancels(dtype):
    problem = layer_problem(dtype=dtype)
    assert torch.equal(codes(ORDERED, problem), codes(ORDERED, replace(problem, hessian=4 * problem.hessian)))


def test_block_size_changes_nothing():
    problem = layer_problem()
    assert all(
        torch.equal(codes(PLAIN, problem), codes(replace(PLAIN, block_size=size), problem))
        for size in (1, 7, 64, 100)
    )


def test_close_to_the_best_codes_there_are():
    problem = layer_problem(rows=8, columns=5, bits=2)
    grid = find_grid(problem)
    best = sum(
        least_error_codes(problem.weight[k : k + 1], problem.hessian, grid.rows(slice(k, k + 1)))
        for k in range(8)
    )
    total = ((problem.weight @ problem.hessian) * problem.weight).sum().item()
    found = layer_error(problem.weight, ORDERED.solve(problem).weight.dequantize(), problem.hessian)
    assert best / total <= found * (1 + 1e-9) and found <= 1.5 * best / total


def test_dead_columns_are_rounded_to_nearest():
    problem = layer_problem()
    problem.hessian[[3, 20]], problem.hessian[:, [3, 20]] = 0, 0
    for solver in (PLAIN, ORDERED):
        assert torch.equal(codes(solver, problem)[:, [3, 20]], codes(RTN(), problem)[:, [3, 20]])


def test_risen_damping_is_recorded():
    hessian = correlated_hessian(64, 0) - 0.5 * torch.eye(64, dtype=torch.float64)
    solution = PLAIN.solve(LayerProblem(layer_problem().weight, hessian, layer_problem().scheme))
    assert solution.fallbacks == upper_factor(hessian, 0.01).fallbacks != ()
    assert solution.stats["damping"] > 0.01


@pytest.mark.parametrize("field", [dict(damping=-1.0), dict(block_size=0)])
def test_bad_fields_are_refused_by_name(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        replace(PLAIN, **field)
