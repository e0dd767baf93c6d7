"""QuantEase against coordinate descent written out, its descent, its start; and odd problems for every
solver.
"""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from methods.contracts.problem import LayerProblem, Ranges
from methods.contracts.scheme import RangeRule
from methods.gptq import GPTQ
from methods.quantease import QuantEase, better_rows
from methods.rtn import RTN
from methods.solving.descent import Descent, Feedback, Matmul
from methods.solving.linalg import energy, layer_error
from methods.solving.ranges import find_grid
from tests.helpers.oracles import textbook_quantease
from tests.helpers.problems import correlated_hessian, layer_problem, scheme

PAPER = QuantEase(
    sweeps=12,
    relax_every=3,
    settle=4,
    start=None,
    act_order=False,
    step_scale=1.0,
    block_size=16,
    matmul=Matmul.float32,
)
DESCENT = replace(PAPER, relax_every=None)
START = GPTQ(damping=0.01, block_size=16, act_order=True, static_groups=True)


def codes(solver, problem):
    return solver.solve(problem).weight.codes


@pytest.mark.parametrize(
    "solver", [PAPER, DESCENT, replace(PAPER, block_size=7)], ids=["paper", "descent", "odd blocks"]
)
@pytest.mark.parametrize("form", [dict(), dict(group_size=16), dict(bits=2, range=RangeRule.search)], ids=str)
def test_equals_the_textbook(solver, form):
    problem = layer_problem(rows=40, **form)
    grid = find_grid(problem)
    relaxed = [solver.schedule.relaxes(sweep) for sweep in range(solver.sweeps)]
    expected = textbook_quantease(problem.weight, problem.hessian, grid, problem.weight, relaxed)
    assert torch.equal(codes(solver, problem), grid.encode(expected))


def test_act_order_and_start_are_the_textbook_too():
    problem = layer_problem()
    order = torch.argsort(problem.hessian.diagonal(), descending=True, stable=True)
    begin = START.solve(problem).weight
    grid = begin.grid.columns(order)
    expected = textbook_quantease(
        problem.weight[:, order],
        problem.hessian[order][:, order],
        grid,
        begin.dequantize()[:, order],
        [False] * 12,
    )
    found = codes(replace(DESCENT, start=START, act_order=True), problem)[:, order]
    assert torch.equal(found, grid.encode(expected))


def test_paper_relaxes_every_third_sweep_and_settles():
    solver = replace(PAPER, sweeps=30)
    assert [k for k in range(30) if solver.schedule.relaxes(k)] == [1, 4, 7, 10, 13, 16, 19, 22, 25]
    assert not any(DESCENT.schedule.relaxes(k) for k in range(12))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounded_sweeps_never_raise_the_error_of_any_row(dtype):
    problem = layer_problem(dtype=dtype, bits=2)
    grid, hessian = find_grid(problem), problem.hessian
    feedback = Feedback.of_hessian(hessian)
    descent = Descent(problem.weight, grid.round(problem.weight), feedback, grid, 16)
    errors = [energy(grid.round(problem.weight) - problem.weight, hessian)]
    for _ in range(6):
        descent.sweep(rounded=True)
        errors.append(energy(grid.round(descent.values) - problem.weight, hessian))
    slack = 1e-12 if dtype == torch.float64 else 1e-5
    assert all((after <= before * (1 + slack)).all() for before, after in pairwise(errors))
    assert errors[-1].sum() < 0.9 * errors[0].sum()


def test_no_sweeps_leave_the_start():
    problem = layer_problem()
    assert torch.equal(codes(replace(PAPER, sweeps=0), problem), codes(RTN(), problem))
    assert torch.equal(codes(replace(PAPER, sweeps=0, start=START), problem), codes(START, problem))


@pytest.mark.parametrize("relax_every", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_row_ends_worse_than_it_started(dtype, relax_every):
    for seed in range(4):
        problem = layer_problem(seed=seed, bits=2 + seed % 2, dtype=dtype)
        begin, found = (
            solver.solve(problem).weight.dequantize()
            for solver in (START, replace(PAPER, start=START, relax_every=relax_every))
        )
        before, after = (
            energy(problem.weight.double() - values.double(), problem.hessian) for values in (begin, found)
        )
        assert (after <= before * (1 + 1e-12)).all()
        assert after.sum() < before.sum()


def test_better_rows_chooses_row_by_row():
    weight, hessian = torch.zeros(2, 3), torch.eye(3, dtype=torch.float64)
    first, second = torch.tensor([[1.0, 0, 0], [0, 0, 2]]), torch.tensor([[2.0, 0, 0], [0, 0, 1]])
    assert torch.equal(better_rows(weight, first, second, hessian), torch.tensor([[1.0, 0, 0], [0, 0, 1]]))


def test_stops_when_nothing_moves_any_more():
    problem = layer_problem()
    settled = replace(DESCENT, sweeps=200).solve(problem)
    assert settled.stats["sweeps"] < 200 and settled.stats["changed"] == 0
    # offered as learned ranges: refitted on the rounded weights it might come out smaller
    grid = settled.weight.grid
    ends = Ranges((0 - grid.zero) * grid.scale, (grid.max_code - grid.zero) * grid.scale)
    on_grid = replace(problem, weight=settled.weight.dequantize(), ranges=ends)
    again = replace(DESCENT, start=RTN()).solve(on_grid)
    assert again.stats["sweeps"] == 1 and torch.equal(again.weight.codes, settled.weight.codes)


def test_scale_cancels_rows_are_independent_answers_repeat():
    problem = layer_problem(rows=30)
    found = codes(PAPER, problem)
    assert torch.equal(found, codes(PAPER, problem))
    assert torch.equal(found, codes(PAPER, replace(problem, hessian=4 * problem.hessian)))
    assert torch.equal(found[5:17], codes(PAPER, replace(problem, weight=problem.weight[5:17])))


def odd_problems():
    ordinary = layer_problem(rows=6, columns=32, dtype=torch.float32)
    dead = correlated_hessian(32, 0, torch.float32)
    dead[[0, 9, 31]], dead[:, [0, 9, 31]] = 0, 0
    yield "rank one", ordinary.weight, torch.ones(32, 32)
    yield "few tokens", ordinary.weight, correlated_hessian(32, 1, torch.float32, tokens=5)
    yield "dead columns", ordinary.weight, dead
    yield "all dead", ordinary.weight, torch.zeros(32, 32)
    yield "zero weight", torch.zeros(6, 32), ordinary.hessian
    yield (
        "constant rows",
        torch.ones(6, 32) * torch.tensor([-2.0, 0, 1e-6, 1, 5, 100])[:, None],
        ordinary.hessian,
    )
    yield "huge and tiny", ordinary.weight * torch.logspace(-12, 12, 6)[:, None], ordinary.hessian * 1e-8
    yield "huge inputs", ordinary.weight, ordinary.hessian * 1e12
    yield "one column", ordinary.weight[:, :1].contiguous(), torch.ones(1, 1)
    yield "one row", ordinary.weight[:1], ordinary.hessian
    yield "indefinite", ordinary.weight, ordinary.hessian - 0.3 * torch.eye(32)


@pytest.mark.parametrize(
    "solver",
    [RTN(), START, PAPER, replace(PAPER, start=START)],
    ids=["rtn", "gptq", "quantease", "quantease_gptq"],
)
@pytest.mark.parametrize(
    "name, weight, hessian", odd_problems(), ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.parametrize("rule", [RangeRule.minmax, RangeRule.search])
def test_odd_problems_have_finite_answers(solver, name, weight, hessian, rule):
    solution = solver.solve(LayerProblem(weight, hessian, scheme(bits=3, range=rule)))
    assert torch.isfinite(solution.weight.dequantize()).all()
    assert solution.weight.codes.max() <= 7
    if name != "indefinite":
        assert layer_error(weight, solution.weight.dequantize(), hessian) >= 0
    elif getattr(solver, "start", solver) is START:
        assert solution.fallbacks


@pytest.mark.parametrize("field", [dict(sweeps=-1), dict(relax_every=1), dict(settle=0), dict(block_size=0)])
def test_bad_fields_are_refused_by_name(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        replace(PAPER, **field)
