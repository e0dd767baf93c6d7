"""What every solver and every transform inherits: one suite over whatever files conf/method/ holds. A new
method adds nothing here.
"""

import dataclasses
import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from harness.config.compose import FOLDER, method_config, method_names
from harness.config.method_builder import build_method
from methods.blocks.functional import values_of
from methods.contracts.problem import LayerProblem
from methods.contracts.scheme import OutlierStructure
from methods.solving.linalg import layer_error
from methods.solving.ranges import find_grid, fit_grid
from methods.weights.bits_per_weight import bits_per_weight
from methods.weights.grid import Grid
from methods.weights.stored import UniformWeight, restore
from tests.helpers.block_samples import change, uneven_block, untouched
from tests.helpers.problems import correlated_hessian, layer_problem, scheme

ROOT = Path(__file__).resolve().parents[2]
# a solver may lose to rounding to nearest by this factor, on problems where there is little to win
SLACK = 1.02
METHODS = {name: build_method(method_config(name)) for name in method_names()}


def solvers():
    """Of every method that is a solver alone, and every other one that conf/method/solver/ offers."""
    alone = {
        name: method.solver
        for name, method in METHODS.items()
        if method.solver is not None and method.transform is None
    }
    for path in sorted((FOLDER / "solver").glob("*.yaml")):
        if path.stem not in alone:
            alone[path.stem] = build_method(method_config("rtn", f"method/solver={path.stem}")).solver
    return [pytest.param(solver, id=name) for name, solver in alone.items()]


def transforms():
    """Of every method that has one, and every other one that conf/method/transform/ offers."""
    found = {name: method.transform for name, method in METHODS.items()}
    for path in sorted((FOLDER / "transform").glob("*.yaml")):
        if path.stem not in found:
            found[path.stem] = build_method(method_config("rtn", f"method/transform={path.stem}")).transform
    return [
        pytest.param(in_short(transform), id=name)
        for name, transform in found.items()
        if transform is not None
    ]


def in_short(transform):
    """The same, trained for one epoch if it is trained: what is promised holds after any number."""
    return dataclasses.replace(transform, epochs=1) if hasattr(transform, "epochs") else transform


@pytest.fixture(params=solvers())
def solver(request):
    return request.param


@pytest.fixture(params=transforms())
def transform(request):
    return request.param


SCHEMES = [
    dict(bits=2),
    dict(bits=3),
    dict(bits=4, group_size=16),
    dict(bits=3, symmetric=True),
    dict(bits=3, group_size=16, scale_bits=3),
    dict(bits=3, outlier_ratio=0.05),
    dict(bits=3, outlier_ratio=0.05, outlier_structure=OutlierStructure.column),
]


@pytest.fixture(params=SCHEMES, ids=lambda s: "-".join(f"{k}{v}" for k, v in s.items()))
def problem(request, solver):
    problem = layer_problem(**request.param)
    if reason := solver.skip_reason(problem.scheme):
        pytest.skip(reason)
    return problem


def dense(solver, problem):
    return solver.solve(problem).weight.dequantize()


def test_name_is_the_file_name():
    for path in FOLDER.glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["name"] == path.stem


def is_a_frozen_dataclass_without_defaults(part):
    assert dataclasses.is_dataclass(part) and part.__dataclass_params__.frozen
    for field in dataclasses.fields(part):
        assert field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING, (
            field.name
        )


def test_solver_is_a_frozen_dataclass_without_defaults(solver):
    is_a_frozen_dataclass_without_defaults(solver)


def test_codes_are_in_range_and_the_answer_is_finite(solver, problem):
    weight = solver.solve(problem).weight
    assert torch.isfinite(weight.dequantize()).all()
    assert weight.dequantize().shape == problem.weight.shape
    base = getattr(weight, "base", weight)
    if isinstance(base, UniformWeight):
        assert base.codes.max() <= problem.scheme.max_code


def test_weights_on_the_grid_come_back_unchanged(solver, problem):
    found = solver.solve(problem).weight
    if not isinstance(found, UniformWeight) or problem.scheme.scale_bits or not found.grid.contiguous:
        pytest.skip("its grid is not the one that fits the extremes of neighbouring columns")
    generator = torch.Generator().manual_seed(5)
    codes = torch.randint(0, problem.scheme.max_code + 1, problem.weight.shape, generator=generator)
    size = problem.scheme.group_size or problem.weight.shape[1]
    codes[:, 0::size], codes[:, 1::size] = 0, problem.scheme.max_code  # both ends of every grid are used
    weight = fit_grid(problem.weight, problem.scheme).decode(codes)
    # the extreme that fixes a symmetric range is never itself on the grid: use a given range
    if problem.scheme.symmetric:
        pytest.skip("a symmetric min-max grid does not hold its own extreme")
    on_grid = dataclasses.replace(problem, weight=weight)
    torch.testing.assert_close(dense(solver, on_grid), weight, rtol=1e-6, atol=1e-9)


def test_scaling_the_hessian_changes_nothing(solver, problem):
    scaled = dataclasses.replace(problem, hessian=4 * problem.hessian)
    assert torch.equal(dense(solver, problem), dense(solver, scaled))


def test_the_same_problem_gives_the_same_answer(solver, problem):
    before = problem.weight.clone(), problem.hessian.clone()
    assert torch.equal(dense(solver, problem), dense(solver, problem))
    assert torch.equal(problem.weight, before[0]) and torch.equal(problem.hessian, before[1]), (
        "the problem was modified"
    )


def test_rows_are_independent(solver, problem):
    if not solver.rows_independent:
        pytest.skip("this solver couples rows")
    if problem.scheme.outlier_ratio or problem.scheme.scale_bits:
        pytest.skip("this scheme couples rows")
    half = dataclasses.replace(problem, weight=problem.weight[::2].clone())
    torch.testing.assert_close(dense(solver, half), dense(solver, problem)[::2], rtol=1e-9, atol=1e-12)


def test_never_worse_than_rounding_to_nearest(solver, problem):
    nearest = find_grid(problem).round(problem.weight)
    error = layer_error(problem.weight, dense(solver, problem), problem.hessian)
    assert error <= SLACK * layer_error(problem.weight, nearest, problem.hessian)


def test_close_to_the_best_of_all_roundings(solver):
    """5 columns of 2 bits: all 1024 roundings of each row are tried."""
    ratios = []
    for seed in range(8):
        problem = layer_problem(rows=6, columns=5, seed=seed, bits=2)
        if solver.skip_reason(problem.scheme):
            pytest.skip("the scheme makes no sense for this solver")
        weight = solver.solve(problem).weight
        if not isinstance(weight, UniformWeight):
            pytest.skip("not a uniform grid")
        best = best_rounding(problem, weight.grid)
        ratios.append(
            layer_error(problem.weight, weight.dequantize(), problem.hessian)
            / layer_error(problem.weight, best, problem.hessian)
        )
    assert min(ratios) >= 1 - 1e-9, "better than the optimum: one of the two is wrong"
    if type(solver).__name__ != "RTN":
        assert sum(ratios) / len(ratios) < 1.5


def best_rounding(problem: LayerProblem, grid: Grid) -> torch.Tensor:
    columns = problem.weight.shape[1]
    # (4^5, 5)
    codes = torch.tensor(list(itertools.product(range(problem.scheme.max_code + 1), repeat=columns)))
    # (rows, 4^5, 5)
    candidates = (codes[None] - grid.zero[:, :, None].squeeze(1)[:, None]) * grid.scale[:, :1][:, None]
    errors = problem.weight[:, None] - candidates
    losses = torch.einsum("rcj,jk,rck->rc", errors, problem.hessian, errors)
    return candidates[torch.arange(len(problem.weight)), losses.argmin(dim=1)]


def test_what_is_stored_decodes_to_what_was_solved(solver, problem):
    weight = solver.solve(problem).weight
    again = restore({name: tensor.clone() for name, tensor in weight.tensors().items()}, weight.layout())
    assert torch.equal(again.dequantize(), weight.dequantize())
    assert bits_per_weight(weight.tensors(), problem.weight.numel()) >= problem.scheme.bits


def test_every_group_size_and_a_float_zero_point(solver):
    for of_scheme in (dict(group_size=8), dict(group_size=32), dict(zero_point="float")):
        of_scheme = {
            key: type(scheme().zero_point)[value] if key == "zero_point" else value
            for key, value in of_scheme.items()
        }
        problem = layer_problem(bits=3, **of_scheme)
        if solver.skip_reason(problem.scheme):
            continue
        assert torch.isfinite(dense(solver, problem)).all()


def test_dead_columns_are_rounded_not_zeroed(solver):
    problem = layer_problem(bits=4)
    hessian = correlated_hessian(64, 0)
    hessian[7], hessian[:, 7] = 0, 0
    dead = dataclasses.replace(problem, hessian=hessian)
    if solver.skip_reason(problem.scheme):
        pytest.skip("the scheme makes no sense for this solver")
    rounded = dense(solver, dead)
    assert (rounded[:, 7] - problem.weight[:, 7]).abs().max() < problem.weight.abs().max() / 8


# --- transforms
# --------------------------------------------------------------------------------------------------

BLOCKS = [("llama", dict(bits=2, group_size=16)), ("opt", dict(bits=4, act_bits=4))]


def test_transform_is_a_frozen_dataclass_without_defaults(transform):
    is_a_frozen_dataclass_without_defaults(transform)


@pytest.mark.parametrize("variant, fields", BLOCKS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_transform_keeps_the_function_and_is_deterministic(transform, variant, fields):
    of, answers = scheme(**fields), []
    for _ in range(2):
        block, samples = uneven_block(variant)
        if reason := transform.skip_reason(of, block.seams):
            pytest.skip(reason)
        before, told = untouched(samples), []
        transformed = transform.apply_(
            block, samples, of, lambda done, total, note, told=told: told.append(done / total)
        )
        assert all(
            torch.equal(s.hidden, b.hidden) and torch.equal(s.target, b.target)
            for s, b in zip(samples, before, strict=True)
        )
        assert change(block, samples) < 1e-5, "the block computes something else"
        assert told and told == sorted(told) and told[-1] == 1
        answers.append((values_of(block), transformed))
    (values, first), (again, second) = answers
    assert (
        all(torch.equal(value, again[name]) for name, value in values.items())
        and first.fallbacks == second.fallbacks
    )
    for path, found in first.ranges.items():
        weight = block.module.get_submodule(path).weight
        assert (
            found.low.shape == (len(weight), weight.shape[1] // (of.group_size or weight.shape[1]))
            and found.low.dtype is torch.float32
        )
        assert torch.equal(found.low, second.ranges[path].low) and torch.equal(
            found.high, second.ranges[path].high
        )
        assert torch.isfinite(
            find_grid(LayerProblem(weight.detach(), torch.eye(weight.shape[1]), of, found)).round(weight)
        ).all()
    assert all(isinstance(value, float) for value in first.stats.values())


TOY_METHOD = '''
"""Toy: coordinate descent by the book, one column at a time."""

from dataclasses import dataclass
from typing import ClassVar

from methods.contracts.problem import LayerProblem, Solution
from methods.solving.ranges import find_grid
from methods.contracts.scheme import OutlierStructure
from methods.weights.stored import UniformWeight


@dataclass(frozen=True)
class Toy:
    sweeps: int
    rows_independent: ClassVar[bool] = True

    def skip_reason(self, scheme):
        return None

    def solve(self, problem: LayerProblem) -> Solution:
        grid, hessian = find_grid(problem), problem.hessian
        values = grid.round(problem.weight)
        for _ in range(self.sweeps):
            for j in range(values.shape[1]):
                if hessian[j, j] > 0:
                    target = values[:, j] + (problem.weight - values) @ hessian[:, j] / hessian[j, j]
                    values[:, j] = grid.columns(slice(j, j + 1)).round(target[:, None]).squeeze(1)
        return Solution(UniformWeight(grid.encode(values), grid))
'''


def test_a_new_method_is_one_file_and_one_yaml(tmp_path):
    """Drop a method and its yaml into a copy of the project: this suite picks it up, and nothing else is
    touched.
    """
    for folder in ("conf", "harness", "methods", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder)  # with the compiled kernels
    (tmp_path / "methods" / "toy.py").write_text(TOY_METHOD)
    (tmp_path / "conf" / "method" / "toy.yaml").write_text(
        "name: toy\nsolver:\n  _target_: methods.toy.Toy\n  sweeps: 10\n"
    )
    arguments = [
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        "tests/methods/test_conformance.py",
        "-k",
        "toy and not one_file",
    ]
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    passed = int(ran.stdout.rsplit(" passed", 1)[0].split()[-1])
    assert passed >= 25, ran.stdout
