"""Algorithms as their papers write them down, column by column in torch: what the solvers are timed against.

Each slow form gets what the fast one gets and must arrive at the same error; `comparisons` pairs them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.benchmarks.layers import Layer, method_named
from harness.benchmarks.measure import timed
from harness.config.compose import scheme_named
from methods.contracts.problem import LayerProblem
from methods.contracts.scheme import RangeRule
from methods.gptq import triangular_feedback
from methods.solving.alternation import grid_without, largest, largest_eigenvalue
from methods.solving.linalg import layer_error, upper_factor
from methods.solving.ranges import find_grid
from methods.vectors.descent import Sweeper


@dataclass(frozen=True)
class Comparison:
    """Two ways to the same rounded weight, (out, in)."""

    name: str
    fast: Callable[[LayerProblem], Tensor]
    slow: Callable[[LayerProblem], Tensor]
    what: str  # what both do


def compare(layer: Layer, device: str) -> list[dict]:
    """Seconds and errors of both forms of every algorithm on one layer at 3 bits, one after the other in this
    process.
    """
    problem = LayerProblem(layer.weight, layer.hessian, replace(scheme_named("w3"), range=RangeRule.minmax))
    rows = []
    for entry in comparisons(problem):
        entry.fast(problem)  # may compile kernels
        fast, quick = timed(lambda entry=entry: entry.fast(problem), 5, device)
        slow, plain = timed(lambda entry=entry: entry.slow(problem), 1, device)
        errors = [layer_error(layer.weight, found, layer.hessian) for found in (quick, plain)]
        rows.append(
            {
                "algorithm": entry.name,
                "layer": layer.title,
                "what": entry.what,
                "seconds": fast,
                "textbook_seconds": slow,
                "ratio": slow / fast,
                "error": errors[0],
                "textbook_error": errors[1],
            }
        )
    return rows


def fast_quantease(problem: LayerProblem) -> Tensor:
    return method_named("quantease").solver.solve(problem).weight.dequantize()


def slow_quantease(problem: LayerProblem) -> Tensor:
    """Cyclic descent, QuantEase's Algorithm 2: one product per sweep, then per column what this sweep has
    moved.
    """
    solver, grid = method_named("quantease").solver, find_grid(problem)
    scaled = problem.hessian / torch.diagonal(problem.hessian)  # column j divided by H_jj
    target = problem.weight @ scaled
    coupling = scaled.clone().fill_diagonal_(0)
    values = problem.weight.clone()
    for sweep in range(solver.sweeps):
        reached, moved = values @ coupling, torch.zeros_like(values)
        for j in range(problem.weight.shape[1]):
            wanted = target[:, j] - reached[:, j] - moved[:, :j] @ coupling[:j, j]
            if not solver.schedule.relaxes(sweep):
                wanted = grid.columns(slice(j, j + 1)).round(wanted[:, None]).squeeze(1)
            moved[:, j] = wanted - values[:, j]
            values[:, j] = wanted
    return values


def fast_outliers(problem: LayerProblem) -> Tensor:
    return method_named("quantease").solver.solve(with_outliers(problem)).weight.dequantize()


def slow_outliers(problem: LayerProblem) -> Tensor:
    """QuantEase's Algorithm 3: a sweep towards W - H column by column, then a step of iterative hard
    thresholding on H.
    """
    solver, problem = method_named("quantease").solver, with_outliers(problem)
    weight, hessian = problem.weight, problem.hessian
    scaled = hessian / torch.diagonal(hessian)
    coupling, step = scaled.clone().fill_diagonal_(0), solver.step_scale / largest_eigenvalue(hessian)
    outliers = largest(weight, problem)
    values, grid = weight - outliers, grid_without(problem, outliers)
    for sweep in range(solver.sweeps):
        target, reached, moved = (weight - outliers) @ scaled, values @ coupling, torch.zeros_like(values)
        for j in range(weight.shape[1]):
            wanted = target[:, j] - reached[:, j] - moved[:, :j] @ coupling[:j, j]
            if not solver.schedule.relaxes(sweep):
                wanted = grid.columns(slice(j, j + 1)).round(wanted[:, None]).squeeze(1)
            moved[:, j] = wanted - values[:, j]
            values[:, j] = wanted
        outliers = largest(outliers - step * ((values + outliers - weight) @ hessian), problem)
        if sweep <= solver.schedule.last_relaxed:
            grid = grid_without(problem, outliers)
    return values + outliers


def with_outliers(problem: LayerProblem) -> LayerProblem:
    return replace(problem, scheme=replace(problem.scheme, outlier_ratio=0.01))


def vptq_pass(problem: LayerProblem) -> Comparison:
    """Both forms on one codebook, at 2 bits: k-means is in neither, the factor of the Hessian in both."""
    plain = {"permute": False, "normalize": "none", "row_scale": False, "conditional": False, "beam": 1}
    solver = method_named("vptq", plain).solver
    problem = replace(problem, scheme=replace(problem.scheme, bits=2))
    rounding = solver.round(problem)
    centroids = rounding.spans[0].book.centroids

    def fast(problem: LayerProblem) -> Tensor:
        feedback = triangular_feedback(
            upper_factor(problem.hessian, solver.damping).upper.to(problem.weight.dtype)
        )
        turned = problem.weight.T.contiguous()
        return (
            turned + Sweeper(feedback, True, rounding.spans, solver.block_size, 1).first_sweep(turned)[0]
        ).T

    return Comparison(
        "vptq, its pass",
        fast,
        lambda problem: slow_vptq(problem, centroids, solver.damping),
        "one pass, 2 bits",
    )


def slow_vptq(problem: LayerProblem, centroids: Tensor, damping: float, block_size: int = 128) -> Tensor:
    """VPTQ's Algorithm 1: nearest centroids one column at a time, the error spread by the inverse Hessian's
    factor, later blocks lazily.
    """
    hessian = problem.hessian.double()
    hessian = hessian + damping * hessian.diagonal().mean() * torch.eye(
        len(hessian), dtype=hessian.dtype, device=hessian.device
    )
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse, upper=True).to(problem.weight.dtype)
    running, rounded = problem.weight.clone(), torch.empty_like(problem.weight)
    for start in range(0, running.shape[1], block_size):
        stop = min(start + block_size, running.shape[1])
        errors = torch.zeros_like(running[:, start:stop])
        for j in range(start, stop):
            vectors = running[:, j].reshape(-1, centroids.shape[1])
            rounded[:, j] = centroids[torch.cdist(vectors, centroids).argmin(1)].reshape(-1)
            errors[:, j - start] = (running[:, j] - rounded[:, j]) / upper[j, j]
            running[:, j:stop] -= torch.outer(errors[:, j - start], upper[j, j:stop])
        running[:, stop:] -= errors @ upper[start:stop, stop:]
    return rounded


def comparisons(problem: LayerProblem) -> tuple[Comparison, ...]:
    return (
        Comparison("quantease", fast_quantease, slow_quantease, "all sweeps of conf/method/quantease.yaml"),
        Comparison(
            "quantease, 1 % outliers",
            fast_outliers,
            slow_outliers,
            "the same, a thresholding step after each sweep",
        ),
        vptq_pass(problem),
    )
