"""Outliers: what is stored, hard thresholding, QuantEase with them against the alternation written out."""

from dataclasses import replace

import pytest
import torch

from methods.contracts.scheme import OutlierStructure, RangeRule
from methods.gptq import GPTQ
from methods.quantease import QuantEase
from methods.rtn import RTN
from methods.solving.alternation import grid_without, largest_eigenvalue
from methods.solving.linalg import layer_error
from methods.solving.ranges import find_grid
from methods.spqr import SpQR
from methods.weights.bits_per_weight import bits_per_weight
from methods.weights.levels import storable
from methods.weights.outliers import (
    ColumnCorrected,
    SparseCorrected,
    corrected,
    keep_largest,
    largest_positions,
    outlier_count,
)
from methods.weights.stored import UniformWeight, restore
from tests.helpers.oracles import textbook_quantease_outliers
from tests.helpers.problems import correlated_hessian, layer_problem, scheme
from tests.methods.test_quantease import PAPER, START

UNSTRUCTURED, COLUMN = OutlierStructure.unstructured, OutlierStructure.column
STRUCTURES = pytest.mark.parametrize("structure", [UNSTRUCTURED, COLUMN], ids=lambda s: s.name)


def base_of(problem) -> UniformWeight:
    grid = find_grid(problem)
    return UniformWeight(grid.encode(problem.weight), grid)


@STRUCTURES
def test_what_is_stored_comes_back_and_is_weighed(structure):
    problem = layer_problem(rows=25, columns=70, outlier_ratio=0.05, outlier_structure=structure)
    correction = storable(
        keep_largest(problem.weight, outlier_count(problem.scheme, problem.weight.shape), structure)
    )
    base = base_of(problem)
    weight = corrected(base, correction, structure)
    again = restore(weight.tensors(), weight.layout())
    assert torch.equal(again.dequantize(), weight.dequantize())
    assert torch.equal(weight.dequantize(), base.dequantize() + correction)
    assert torch.equal(weight.correction(), correction)
    extra = sum(t.nbytes for t in weight.tensors().values()) - sum(t.nbytes for t in base.tensors().values())
    if structure is COLUMN:  # 4 columns of 25 float16 values, 4 indices below 70 of 7 bits in whole bytes
        assert extra == 4 * 25 * 2 + 7
    else:  # 88 float16 values, 88 columns of 7 bits, 25 counts of 7 bits
        assert extra == 88 * 2 + 88 * 7 // 8 + 32 * 7 // 8


def test_no_outlier_at_all_and_only_outliers_in_a_row():
    problem = layer_problem(rows=3, columns=9)
    correction = torch.zeros(3, 9, dtype=torch.float64)
    for fill in (0.0, 0.5):
        correction[1] = fill
        weight = SparseCorrected.of(base_of(problem), correction)
        assert torch.equal(restore(weight.tensors(), weight.layout()).dequantize(), weight.dequantize())


def test_thresholding_keeps_the_largest():
    values = torch.tensor([[1.0, -5, 2], [0.5, 3, -4]])
    assert torch.equal(keep_largest(values, 2, UNSTRUCTURED), torch.tensor([[0.0, -5, 0], [0, 0, -4]]))
    assert torch.equal(keep_largest(values, 1, COLUMN), torch.tensor([[0.0, -5, 0], [0, 3, 0]]))


@pytest.mark.parametrize("size, count", [(10, 3), (5000, 40), (5000, 5000), (20000, 1)])
def test_the_largest_of_many(size, count):
    generator = torch.Generator().manual_seed(size)
    for values in (
        torch.rand(size, generator=generator),
        torch.zeros(size),
        torch.arange(size).flip(0).float(),
    ):
        found = largest_positions(values, count)
        assert len(found.unique()) == count
        assert torch.equal(values[found].sort().values, values.sort().values[size - count :])


def test_counts_are_rounded_shares():
    assert outlier_count(scheme(outlier_ratio=0.01), torch.Size([30, 40])) == 12
    assert outlier_count(scheme(outlier_ratio=0.02, outlier_structure=COLUMN), torch.Size([30, 40])) == 1
    assert outlier_count(scheme(), torch.Size([30, 40])) == 0


def test_largest_eigenvalue():
    hessian = correlated_hessian(40, 3)
    assert largest_eigenvalue(hessian) == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item(), rel=1e-4)
    assert largest_eigenvalue(torch.zeros(4, 4)) == 1


@STRUCTURES
@pytest.mark.parametrize("form", [dict(), dict(group_size=16), dict(bits=2, range=RangeRule.search)], ids=str)
def test_quantease_equals_the_alternation_written_out(structure, form):
    problem = layer_problem(rows=40, outlier_ratio=0.05, outlier_structure=structure, **form)
    count = outlier_count(problem.scheme, problem.weight.shape)
    solver = replace(PAPER, sweeps=7, settle=2)

    def keep(values):
        kept = keep_largest(values, count, structure)
        return storable(kept, within=5e-4 * kept.abs().amax())

    settled, grids = [0], []

    def grid_after(correction):  # refitted until the last relaxed sweep is over
        if settled[0] <= solver.schedule.last_relaxed + 1:
            grids.append(grid_without(problem, correction))
        settled[0] += 1
        return grids[-1]

    start = keep(problem.weight)
    relaxed = [solver.schedule.relaxes(sweep) for sweep in range(solver.sweeps)]
    values, correction = textbook_quantease_outliers(
        problem.weight,
        problem.hessian,
        problem.weight - start,
        start,
        grid_after,
        relaxed,
        1 / largest_eigenvalue(problem.hessian),
        keep,
    )
    found = solver.solve(problem).weight
    torch.testing.assert_close(
        found.correction(), correction, rtol=0, atol=1e-3 * correction.abs().max().item()
    )
    # float16 values of outliers may differ in the last bit
    assert (found.base.codes != grids[-1].encode(values)).float().mean() < 2e-3


@STRUCTURES
@pytest.mark.parametrize("start", [None, START], ids=["float", "gptq"])
def test_outliers_lower_the_error(structure, start):
    plain = replace(PAPER, start=start)
    for seed in range(3):
        problem = layer_problem(rows=40, seed=seed, bits=3, outlier_structure=structure)
        errors = []
        for ratio in (0.0, 0.02, 0.05):
            solution = plain.solve(replace(problem, scheme=replace(problem.scheme, outlier_ratio=ratio)))
            errors.append(layer_error(problem.weight, solution.weight.dequantize(), problem.hessian))
            assert solution.stats.get("outliers", 0) <= ratio + 0.01
        assert errors[2] < errors[1] < 1.02 * errors[0]


def test_a_start_with_outliers_is_never_beaten_by_the_result():
    start = SpQR(damping=0.01, act_order=True, passes=8, tolerance=0.05, block_size=16)
    for seed in range(3):
        problem = layer_problem(rows=40, seed=seed, group_size=16, outlier_ratio=0.03)
        errors = [
            layer_error(problem.weight, solver.solve(problem).weight.dequantize(), problem.hessian)
            for solver in (start, replace(PAPER, start=start))
        ]
        assert errors[1] <= errors[0]


def test_a_ratio_too_small_for_one_outlier_is_plain_quantease():
    problem = layer_problem(rows=8, columns=16, outlier_ratio=0.001)
    plain = replace(problem, scheme=replace(problem.scheme, outlier_ratio=0.0))
    assert torch.equal(PAPER.solve(problem).weight.codes, PAPER.solve(plain).weight.codes)


@pytest.mark.parametrize("solver", [RTN(), GPTQ(0.01, 16, True, True)])
def test_solvers_without_outliers_say_so(solver):
    assert "scheme.outlier_ratio" in solver.skip_reason(scheme(outlier_ratio=0.01))
    assert solver.skip_reason(scheme()) is None


def test_column_outliers_are_whole_columns():
    problem = layer_problem(rows=30, outlier_ratio=0.05, outlier_structure=COLUMN)
    weight = PAPER.solve(problem).weight
    assert isinstance(weight, ColumnCorrected) and weight.columns.numel() == 3
    assert isinstance(PAPER, QuantEase)
    assert bits_per_weight(weight.tensors(), problem.weight.numel()) > 3 + 16 * 3 / 64
