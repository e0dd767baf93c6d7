"""The closed-form refits against brute-force least squares, and the annealed descent that uses them."""

from dataclasses import replace

import pytest
import torch

from methods.contracts.scheme import OutlierStructure, RangeRule, ZeroPoint
from methods.gptq import GPTQ
from methods.quantease import QuantEase
from methods.quantease_further import QuantEaseFurther
from methods.solving.linalg import energy, layer_error
from methods.solving.ranges import find_grid
from methods.solving.refit import Refit, refit_outliers
from methods.spqr import SpQR
from methods.weights.outliers import keep_largest
from methods.weights.stored import UniformWeight, restore
from tests.helpers.problems import layer_problem
from tests.methods.test_quantease import PAPER, START

FURTHER = QuantEaseFurther(start=START, sweeps=20, heat=0.3, settle=10, seed=0, block_size=16)
SPQR = SpQR(damping=0.01, act_order=True, passes=8, tolerance=0.05, block_size=16)


def refitted(problem, grid=None):
    grid = find_grid(problem) if grid is None else grid
    codes = grid.encode(problem.weight)
    found, pulled = Refit(problem.hessian, grid, slice(None)).grid_for(
        codes, grid, problem.weight @ problem.hessian
    )
    return grid, codes, found, pulled


def least_squares(weight, hessian, features):
    """The x that minimises |(features x - weight) H^1/2|^2 for one row; features (in, unknowns)."""
    root = torch.linalg.cholesky(hessian).T
    return torch.linalg.lstsq(root @ features, (root @ weight)[:, None]).solution[:, 0]


def test_scale_and_offset_of_a_channel_are_the_least_squares_solution():
    problem = layer_problem(bits=2, zero_point=ZeroPoint.float)
    _, codes, found, _ = refitted(problem)
    for row in range(5):
        features = torch.stack([codes[row].double(), torch.ones(64, dtype=torch.float64)], 1)
        scale, offset = least_squares(problem.weight[row], problem.hessian, features)
        assert found.scale[row, 0].item() == pytest.approx(scale.item(), rel=1e-3)  # stored as float16
        assert found.offset[row, 0].item() == pytest.approx(offset.item(), rel=1e-3)


def test_scale_alone_beside_an_integer_zero():
    problem = layer_problem(bits=2)
    grid, codes, found, _ = refitted(problem)
    assert torch.equal(found.zero, grid.zero)
    for row in range(5):
        features = (codes[row].double() - grid.zero[row])[:, None]
        assert found.scale[row, 0].item() == pytest.approx(
            least_squares(problem.weight[row], problem.hessian, features).item(), rel=1e-3
        )


FORMS = [
    dict(bits=2),
    dict(bits=3, symmetric=True),
    dict(bits=3, group_size=16, zero_point=ZeroPoint.float),
    dict(bits=3, group_size=16, scale_bits=3),
    dict(bits=2, group_size=16, scale_bits=3, zero_point=ZeroPoint.float, range=RangeRule.search),
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_refit_never_raises_the_error_and_keeps_what_is_stored(form):
    problem = layer_problem(rows=40, **form)
    grid, codes, found, pulled = refitted(problem)
    before, after = (energy(g.decode(codes) - problem.weight, problem.hessian) for g in (grid, found))
    assert (after <= before * (1 + 1e-3)).all() and after.sum() < before.sum()  # float16 scales cost a little
    torch.testing.assert_close(
        pulled, (found.decode(codes) - problem.weight) @ problem.hessian, rtol=1e-6, atol=1e-9
    )
    if problem.scheme.scale_bits:
        assert (grid.scale_levels.choices() == found.scale[..., None]).any(-1).all()


def test_groups_in_any_order_of_columns():
    problem = layer_problem(group_size=16, zero_point=ZeroPoint.float)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    _, _, plain, _ = refitted(problem)
    mixed = replace(problem, weight=problem.weight[:, order], hessian=problem.hessian[order][:, order])
    _, _, found, _ = refitted(mixed, find_grid(problem).columns(order))
    torch.testing.assert_close(found.scale, plain.scale, rtol=1e-2, atol=0)


def test_outliers_are_the_least_squares_solution_of_their_row():
    problem = layer_problem(rows=12, bits=2)
    codes = find_grid(problem).encode(problem.weight)
    rounded = find_grid(problem).decode(codes)
    correction = keep_largest(problem.weight, 60, OutlierStructure.unstructured)
    correction[3] = 0  # a row without any
    found = correction
    for _ in range(10):  # damped steps
        found = refit_outliers(
            found, (rounded + found - problem.weight) @ problem.hessian, problem.hessian, 10.0
        )
    assert torch.equal(found != 0, correction != 0)
    for row in range(12):
        positions = correction[row].nonzero().squeeze(1)
        if len(positions):
            features = torch.eye(64, dtype=torch.float64)[:, positions]
            expected = least_squares(problem.weight[row] - rounded[row], problem.hessian, features)
            torch.testing.assert_close(found[row, positions], expected, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_no_row_ends_worse_than_it_started(form):
    problem = layer_problem(rows=40, **form)
    begin, found = (solver.solve(problem).weight for solver in (START, FURTHER))
    before, after = (
        energy(problem.weight - weight.dequantize(), problem.hessian) for weight in (begin, found)
    )
    assert (after <= before * (1 + 1e-12)).all() and after.sum() < 0.98 * before.sum()
    assert torch.equal(restore(found.tensors(), found.layout()).dequantize(), found.dequantize())
    assert {n: t.nbytes for n, t in found.tensors().items()} == {
        n: t.nbytes for n, t in begin.tensors().items()
    }


def test_outliers_of_the_start_stay_in_place_and_the_error_falls():
    problem = layer_problem(
        rows=40, group_size=16, scale_bits=3, zero_point=ZeroPoint.float, outlier_ratio=0.03
    )
    solver = replace(FURTHER, start=SPQR)
    begin, found = (s.solve(problem).weight for s in (SPQR, solver))
    assert torch.equal(begin.positions, found.positions)
    errors = [layer_error(problem.weight, weight.dequantize(), problem.hessian) for weight in (begin, found)]
    assert errors[1] < 0.97 * errors[0]


def test_a_start_without_outliers_gets_the_largest_entries():
    problem = layer_problem(rows=40, outlier_ratio=0.03)
    weight = FURTHER.solve(problem).weight
    assert torch.equal(
        weight.correction() != 0,
        keep_largest(problem.weight, round(0.03 * 40 * 64), OutlierStructure.unstructured) != 0,
    )


def test_annealing_beats_plain_descent_from_the_same_start():
    plain, cold, warm = [], [], []
    for seed in range(4):
        problem = layer_problem(rows=40, columns=96, seed=seed, bits=2, zero_point=ZeroPoint.float)
        solvers = (
            replace(PAPER, start=START, relax_every=None),
            replace(FURTHER, sweeps=0, settle=40),
            replace(FURTHER, sweeps=40),
        )
        for solver, errors in zip(solvers, (plain, cold, warm), strict=True):
            errors.append(
                layer_error(problem.weight, solver.solve(problem).weight.dequantize(), problem.hessian)
            )
    assert sum(warm) < sum(cold) < sum(plain)


def test_no_sweeps_leave_the_start():
    problem = layer_problem()
    found, begin = replace(FURTHER, sweeps=0, settle=0).solve(problem).weight, START.solve(problem).weight
    assert isinstance(found, UniformWeight) and torch.equal(found.codes, begin.codes)


def test_rows_are_independent_answers_repeat_and_the_seed_counts():
    problem = layer_problem(rows=30, bits=2)
    codes = FURTHER.solve(problem).weight.codes
    assert torch.equal(codes, FURTHER.solve(problem).weight.codes)
    assert torch.equal(codes[5:17], FURTHER.solve(replace(problem, weight=problem.weight[5:17])).weight.codes)
    assert not torch.equal(codes, replace(FURTHER, seed=1).solve(problem).weight.codes)


@pytest.mark.parametrize(
    "field", [dict(sweeps=-1), dict(heat=-1.0), dict(settle=-1), dict(seed=-1), dict(block_size=0)]
)
def test_bad_fields_are_refused_by_name(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        replace(FURTHER, **field)
    assert isinstance(START, GPTQ) and isinstance(PAPER, QuantEase)
