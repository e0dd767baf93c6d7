"""Generated layer problems of every unpleasant kind through every solver: finite answers, no surprises, every
fallback said.

`ten_thousand` is the long form; a slice of it always runs. A failure says `generated(seed, name)`, which
builds the problem again.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from harness.config.compose import method_config, method_names
from harness.config.method_builder import build_method
from methods.contracts.problem import LayerProblem, Solution
from methods.contracts.scheme import OutlierStructure, RangeRule, Scheme, ZeroPoint
from methods.quantease import QuantEase
from methods.rtn import RTN
from methods.solving.linalg import energy, live_hessian
from methods.weights.bits_per_weight import bits_per_weight
from methods.weights.stored import UniformWeight, restore
from tests.helpers.problems import scheme

CHUNKS, CHUNK, ALWAYS = 20, 500, 240
METHODS = {name: build_method(method_config(name)) for name in method_names()}
SOLVERS = {
    name: method.solver
    for name, method in METHODS.items()
    if method.solver is not None and method.transform is None
}
# the same code in a fifth of the time
for name in [name for name in SOLVERS if name.startswith("quantease_further")]:
    SOLVERS[name] = replace(SOLVERS[name], sweeps=8)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# --- weights: (rows, columns) float64, of size about 1
# ---------------------------------------------------------------


def constant_rows(generator, rows, columns):
    return normal(generator, rows, 1).expand(rows, columns).clone()


def zero_rows(generator, rows, columns):
    weight = normal(generator, rows, columns)
    weight[torch.rand(rows, generator=generator) < 0.5] = 0
    return weight


def zero_columns(generator, rows, columns):
    weight = normal(generator, rows, columns)
    weight[:, torch.rand(columns, generator=generator) < 0.5] = 0
    return weight


def few_values(generator, rows, columns):
    """Ties everywhere: what lies half way between two grid points, often."""
    return torch.randint(-2, 3, (rows, columns), generator=generator).double() / 2


def one_huge_entry(generator, rows, columns):
    weight = normal(generator, rows, columns)
    weight.view(-1)[int(torch.randint(0, weight.numel(), (), generator=generator))] *= 1e6
    return weight


def uneven_rows(generator, rows, columns):
    """Rows of one matrix, six orders of magnitude apart."""
    return normal(generator, rows, columns) * 10 ** (
        6 * torch.rand(rows, 1, generator=generator, dtype=torch.float64) - 3
    )


def one_sign(generator, rows, columns):
    return normal(generator, rows, columns).abs() + 1


def all_zero(generator, rows, columns):
    return torch.zeros(rows, columns, dtype=torch.float64)


def equal_rows(generator, rows, columns):
    return normal(generator, 1, columns).expand(rows, columns).clone()


WEIGHTS = (
    normal,
    constant_rows,
    zero_rows,
    zero_columns,
    few_values,
    one_huge_entry,
    uneven_rows,
    one_sign,
    all_zero,
    equal_rows,
)

# --- calibration inputs: (tokens, columns) float64; the Hessian is their second moment
# -------------------------------


def plenty(generator, columns):
    return normal(generator, 4 * columns, 3) @ normal(generator, 3, columns) + normal(
        generator, 4 * columns, columns
    )


def few_tokens(generator, columns):
    return normal(generator, max(1, columns // 3), columns)


def one_token(generator, columns):
    return normal(generator, 1, columns)


def equal_columns(generator, columns):
    """Every column twice."""
    half = normal(generator, 2 * columns, -(-columns // 2))
    return torch.cat([half, half], dim=1)[:, :columns]


def dead_columns(generator, columns):
    inputs = plenty(generator, columns)
    inputs[:, torch.rand(columns, generator=generator) < 0.4] = 0
    return inputs


def no_input(generator, columns):
    return torch.zeros(1, columns, dtype=torch.float64)


def uneven_columns(generator, columns):
    """Columns eight orders of magnitude apart in size, sixteen in the Hessian."""
    return plenty(generator, columns) * 10 ** (
        8 * torch.rand(columns, generator=generator, dtype=torch.float64) - 4
    )


def nearly_one_direction(generator, columns):
    return normal(generator, 2 * columns, 1) @ normal(generator, 1, columns) + 1e-6 * normal(
        generator, 2 * columns, columns
    )


def uncorrelated(generator, columns):
    return torch.eye(columns, dtype=torch.float64)


INPUTS = (
    plenty,
    few_tokens,
    one_token,
    equal_columns,
    dead_columns,
    no_input,
    uneven_columns,
    nearly_one_direction,
    uncorrelated,
)

# --- what rounding does to a Hessian on its way to a solver
# -----------------------------------------------------------


def untouched(generator, hessian):
    return hessian


def through_bfloat16(generator, hessian):
    """Symmetric still, but no longer positive semidefinite."""
    return hessian.bfloat16().double()


def a_little_noise(generator, hessian):
    noise = (
        normal(generator, *hessian.shape)
        * torch.outer(torch.diagonal(hessian), torch.diagonal(hessian)).sqrt()
    )
    return hessian + 1e-7 * (noise + noise.T)


DAMAGE = (untouched, untouched, through_bfloat16, a_little_noise)
SHAPES = (
    (1, 1),
    (1, 32),
    (32, 1),
    (2, 2),
    (3, 5),
    (8, 16),
    (16, 16),
    (7, 48),
    (24, 32),
    (17, 31),
    (40, 64),
    (5, 96),
)
TRIES = 200
SIZES = (1.0, 1.0, 0.03, 1e-4, 1e-20, 1e-10, 1e10, 1e20)


def turn(seed: int) -> str:
    """The name of the solver that gets the problem of a seed when all problems are shared out."""
    return sorted(SOLVERS)[seed % len(SOLVERS)]


def generated(seed: int, name: str) -> LayerProblem:
    """A problem whose scheme this solver accepts."""
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    rows, columns = choose.choice(SHAPES)
    dtype = choose.choice((torch.float32, torch.float32, torch.float64))
    weight = choose.choice(WEIGHTS)(generator, rows, columns) * choose.choice(SIZES)
    inputs = choose.choice(INPUTS)(generator, columns)
    hessian = choose.choice(DAMAGE)(generator, inputs.T @ inputs / len(inputs)) * choose.choice(SIZES)
    schemes = (generated_scheme(choose, columns) for _ in range(TRIES))
    accepted = next((found for found in schemes if not SOLVERS[name].skip_reason(found)), None)
    assert accepted is not None, f"{name} refuses all of {TRIES} schemes"
    return LayerProblem(weight.to(dtype), hessian.to(dtype), accepted)


def generated_scheme(choose: random.Random, columns: int) -> Scheme:
    symmetric = choose.random() < 0.2
    divisors = [size for size in range(1, columns + 1) if columns % size == 0]
    return scheme(
        bits=choose.choice((2, 2, 3, 4, 8)),
        group_size=choose.choice((None, None, choose.choice(divisors))),
        symmetric=symmetric,
        zero_point=ZeroPoint.integer if symmetric else choose.choice(list(ZeroPoint)),
        range=choose.choice(list(RangeRule)),
        scale_bits=choose.choice((None, None, 3, 6)),
        scale_group_size=choose.choice((1, 3, 16)),
        outlier_ratio=choose.choice((0.0, 0.0, 0.01, 0.1, 0.5)),
        outlier_structure=choose.choice(list(OutlierStructure)),
    )


# --- what must hold
# ---------------------------------------------------------------------------------------------------


def complaints(solver, problem: LayerProblem) -> list[str]:
    """Everything that is wrong with a solver's answer to a problem."""
    before = problem.weight.clone(), problem.hessian.clone()
    try:
        solution = solver.solve(problem)
    except Exception as error:
        return [f"raised {type(error).__name__}: {error}"]
    rounded, found = solution.weight.dequantize(), []
    if not (torch.equal(problem.weight, before[0]) and torch.equal(problem.hessian, before[1])):
        found.append("changed the problem")
    if rounded.shape != problem.weight.shape or rounded.dtype != problem.weight.dtype:
        return [*found, f"returned {tuple(rounded.shape)} {rounded.dtype}"]
    if not torch.isfinite(rounded).all():
        found.append("returned weights that are not finite")
    return (
        found + stored_wrong(solution, problem) + unsaid(solver, solution) + astray(solver, rounded, problem)
    )


def stored_wrong(solution: Solution, problem: LayerProblem) -> list[str]:
    tensors = {name: tensor.clone() for name, tensor in solution.weight.tensors().items()}
    try:
        again = restore(tensors, solution.weight.layout()).dequantize()
    except Exception as error:
        return [f"cannot be restored: {type(error).__name__}: {error}"]
    found = (
        [] if torch.equal(again, solution.weight.dequantize()) else ["what is stored is not what was solved"]
    )
    if not 0 < bits_per_weight(tensors, problem.weight.numel()) < math.inf:
        found.append("stored nothing")
    outliers = solution.stats.get("outliers", 0.0)
    if not 0 <= outliers <= 1:
        found.append(f"outlier share {outliers}")
    return found


def unsaid(solver, solution: Solution) -> list[str]:
    """Facts for the record are words and finite numbers; a damping other than the one asked for stands among
    the fallbacks.
    """
    if not all(isinstance(text, str) and text for text in solution.fallbacks):
        return [f"fallbacks without words: {solution.fallbacks}"]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in solution.stats.values()):
        return [f"stats that are no finite numbers: {dict(solution.stats)}"]
    asked = getattr(solver, "damping", None) or getattr(getattr(solver, "start", None), "damping", None)
    used = solution.stats.get("damping", asked)
    return (
        []
        if asked is None or used == asked or solution.fallbacks
        else [f"damping {used:g} instead of {asked:g}, and no word of it"]
    )


def astray(solver, rounded: Tensor, problem: LayerProblem) -> list[str]:
    """An error far above that of forgetting the weights altogether, and above rounding to nearest where the
    format allows no better.

    QuantEase from the float weights promises nothing of the kind: it starts without error and off the grid.
    """
    if isinstance(solver, QuantEase) and solver.start is None:
        return []
    if not problem.weight.any():
        return ["zeros came back as something else"] if rounded.any() else []
    error = relative_error(rounded, problem)
    if error <= FAR:
        return []
    plain = replace(problem, scheme=replace(problem.scheme, outlier_ratio=0.0))
    plainly = RTN().solve(plain).weight.dequantize()
    nearest = relative_error(plainly, problem)
    as_given = [
        energy(problem.weight.double() - found.double(), problem.hessian).sum()
        for found in (rounded, plainly)
    ]
    # what a Hessian of mere noise says in a direction is no one's fault
    if error <= 2 * nearest or as_given[0] <= 2 * as_given[1]:
        return []
    return [f"relative error {error:.3g}, of rounding to nearest {nearest:.3g}"]


FAR = 4.0


def relative_error(rounded: Tensor, problem: LayerProblem) -> float:
    """By the Hessian with dead columns made live, and no eigenvalue below the noise that its own rounding
    left.
    """
    values, vectors = torch.linalg.eigh(live_hessian(problem.hessian.double())[0])
    root = vectors * values.clamp(min=values[-1] * 1e-7).sqrt()
    weight = problem.weight.double()
    return (((weight - rounded.double()) @ root).square().sum() / (weight @ root).square().sum()).item()


def run(seeds, solvers=SOLVERS) -> list[str]:
    """One line for each problem that went wrong."""
    lines = []
    for seed in seeds:
        name = turn(seed)
        solver, problem = solvers[name], generated(seed, name)
        lines += [
            f"generated({seed}, {name!r}) {tuple(problem.weight.shape)} {problem.scheme}: {text}"
            for text in complaints(solver, problem)
        ]
    return lines


def report(lines: list[str]) -> str:
    return "\n".join([f"{len(lines)} complaints", *lines[:20]])


def test_a_slice_of_the_generated_problems():
    lines = run(range(ALWAYS))
    assert not lines, report(lines)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_ten_thousand_generated_problems(chunk):
    lines = run(range(ALWAYS + chunk * CHUNK, ALWAYS + (chunk + 1) * CHUNK))
    assert not lines, report(lines)


def test_the_problems_cover_what_they_claim():
    """Every solver meets every kind of scheme, and enough problems are singular, indefinite, dead or of one
    column.
    """
    assert {turn(seed) for seed in range(ALWAYS)} == set(SOLVERS)
    problems = [generated(seed, turn(seed)) for seed in range(ALWAYS)]
    schemes = [problem.scheme for problem in problems]
    for field in ("bits", "symmetric", "zero_point", "range", "outlier_structure", "scale_bits"):
        assert len({getattr(found, field) for found in schemes}) > 1, field
    assert sum(found.group_size is not None for found in schemes) > ALWAYS / 8
    hessians = [problem.hessian.double() for problem in problems]
    spectra = [torch.linalg.eigvalsh(hessian / (hessian.abs().max() or 1)) for hessian in hessians]
    assert sum(spectrum[0] < 1e-12 for spectrum in spectra) > ALWAYS / 4, "singular"
    assert sum(spectrum[0] < -1e-9 for spectrum in spectra) > ALWAYS / 20, "indefinite by rounding"
    assert sum((torch.diagonal(hessian) == 0).any() for hessian in hessians) > ALWAYS / 20, "dead columns"
    assert sum(problem.weight.shape[1] == 1 for problem in problems) > ALWAYS / 20
    assert sum(problem.weight.abs().max() > 1e19 for problem in problems) > ALWAYS / 20
    assert all(
        torch.isfinite(problem.weight).all() and torch.isfinite(problem.hessian).all() for problem in problems
    )


@dataclass(frozen=True)
class Broken:
    """Rounding to nearest, and then something that should not be done."""

    change: Callable[[Tensor], Tensor]

    def solve(self, problem: LayerProblem) -> Solution:
        weight = RTN().solve(problem).weight
        return Solution(BrokenWeight(weight, self.change(weight.dequantize())))


@dataclass(frozen=True)
class BrokenWeight:
    base: UniformWeight
    values: Tensor

    def dequantize(self) -> Tensor:
        return self.values

    def tensors(self) -> dict[str, Tensor]:
        return self.base.tensors()

    def layout(self) -> dict:
        return self.base.layout()


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        (lambda weight: weight * math.nan, "not finite"),
        (lambda weight: weight[:, :0], "returned"),
        (lambda weight: 1 / 0, "ZeroDivisionError"),
        (lambda weight: -20 * weight, "relative error"),
        (lambda weight: weight + 1e-6, "what is stored"),
    ],
)
def test_a_solver_that_errs_is_caught(broken: Callable[[Tensor], Tensor], word):
    problem = LayerProblem(torch.ones(4, 8), torch.eye(8), scheme(bits=4))
    assert any(word in line for line in complaints(Broken(broken), problem))
    assert not complaints(RTN(), problem)
