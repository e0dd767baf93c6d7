"""GPTVQ against its definition: every step by itself in float64, then what is stored, then problems nobody
wants.
"""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from harness.config.compose import method_config
from harness.config.method_builder import build_method
from methods.gptvq import GPTVQ, Propagation, round_vectors
from methods.kernels import metric_nearest
from methods.solving.linalg import layer_error, upper_factor
from methods.vectors.metric_kmeans import fit_centroids, spread_start
from methods.vectors.row_refit import refit
from methods.vectors.tiling import Tiling
from methods.weights.bits_per_weight import bits_per_weight
from methods.weights.grid import Grid
from methods.weights.row_vectors import CoarseCodebooks, Entries, RowVectors
from tests.helpers.oracles import textbook_gptq
from tests.helpers.problems import correlated_hessian, layer_problem, scheme


def gptvq(**fields) -> GPTVQ:
    """The method of conf/method/gptvq.yaml, but for what is given."""
    return replace(build_method(method_config("gptvq")).solver, **fields)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def textbook(
    weight: Tensor, hessian: Tensor, damping: float, books: Tensor, rows_per_block: int, group_of: Tensor
) -> Tensor:
    """Optimal brain quantization of a few columns at a time: explicit inverses of what remains.

    books: (row_blocks, groups, count, length).
    """
    length = books.shape[3]
    hessian = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    running = weight.clone()
    for vector, first in enumerate(range(0, weight.shape[1], length)):
        inverse = torch.linalg.inv(hessian[first:, first:])
        metric = torch.linalg.inv(inverse[:length, :length])
        for row in range(len(weight)):
            choices = books[row // rows_per_block, group_of[vector]][:, : len(metric)]
            steps = choices - running[row, first : first + length]
            best = steps[((steps @ metric) * steps).sum(1).argmin()]
            running[row, first:] += best @ metric @ inverse[:length]
    return running


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_pass_is_the_textbook_given_the_codebooks(length):
    problem = layer_problem(rows=10, columns=24)
    groups = (slice(0, 12), slice(12, 24))
    books = 0.05 * normal(3, 2, 8, length, seed=1)  # blocks of 4, 4 and 2 rows
    tiling = Tiling(10, 4, length, torch.arange(24 // length), groups, torch.arange(24))
    propagation = Propagation.of(upper_factor(problem.hessian, 0.01), 0, length, torch.float64)
    given = iter(books.unbind(1))
    codes, used = round_vectors(problem.weight, propagation, tiling, lambda left, metrics: next(given))
    values = Entries.of(codes, tiling.group_index(), 4, used).spread(used)
    expected = textbook(problem.weight, problem.hessian, 0.01, books, 4, tiling.group_index())
    torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 6])
def test_a_vector_of_which_columns_are_missing_is_the_textbook(columns):
    """The last vector, or the only one: what is missing costs nothing, whatever the centroids hold there."""
    problem, missing = layer_problem(rows=10, columns=columns), -columns % 4
    vectors = (columns + missing) // 4
    books = 0.05 * normal(1, 1, 8, 4, seed=1)
    tiling = Tiling(10, 10, 4, torch.arange(vectors), (slice(0, 4 * vectors),), torch.arange(columns))
    propagation = Propagation.of(upper_factor(problem.hessian, 0.01), missing, 4, torch.float64)
    weight = torch.nn.functional.pad(problem.weight, (0, missing))
    codes, used = round_vectors(weight, propagation, tiling, lambda left, metrics: books[:, 0])
    values = Entries.of(codes, tiling.group_index(), 10, used).spread(used)[:, :columns]
    expected = textbook(problem.weight, problem.hessian, 0.01, books, 10, tiling.group_index())
    torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-12)


def test_codebooks_are_fitted_on_what_is_left_to_round():
    """What the second group sees is the weight that minimises the error, the first group's values fixed."""
    problem = layer_problem(rows=6, columns=8)
    tiling = Tiling(6, 6, 2, torch.arange(4), (slice(0, 4), slice(4, 8)), torch.arange(8))
    propagation = Propagation.of(upper_factor(problem.hessian, 0.0), 0, 2, torch.float64)
    seen, books = [], 0.05 * normal(2, 1, 4, 2)

    def note(left: Tensor, metrics: Tensor) -> Tensor:
        seen.append(left)
        return books[len(seen) - 1]

    codes, used = round_vectors(problem.weight, propagation, tiling, note)
    lost = (Entries.of(codes, tiling.group_index(), 6, used).spread(used) - problem.weight)[:, :4]
    free = -lost @ problem.hessian[:4, 4:] @ torch.linalg.inv(problem.hessian[4:, 4:])
    torch.testing.assert_close(seen[1], problem.weight[:, 4:] + free)


def test_vectors_of_one_and_a_uniform_codebook_are_gptq():
    problem = layer_problem(rows=12, columns=16)
    codes = torch.arange(8, dtype=torch.float64)
    scale, zero = (
        torch.full((12, 1), 0.03, dtype=torch.float64),
        torch.full((12, 1), 4.0, dtype=torch.float64),
    )
    grid = Grid(3, scale, zero, torch.zeros(16, dtype=torch.int64))
    tiling = Tiling(12, 12, 1, torch.arange(16), (slice(0, 16),), torch.arange(16))
    propagation = Propagation.of(upper_factor(problem.hessian, 0.01), 0, 1, torch.float64)
    found, _ = round_vectors(
        problem.weight, propagation, tiling, lambda left, metrics: ((codes - 4) * 0.03).view(1, 8, 1)
    )
    assert torch.equal(grid.decode(found), textbook_gptq(problem.weight, problem.hessian, grid, 0.01))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_each_vector_takes_its_cheapest_centroid(length, dtype):
    shapes = (3, 21, 5, length), (3, 7, length), (5, length, length)
    vectors, centroids, roots = (normal(*shape, seed=seed).to(dtype) for seed, shape in enumerate(shapes))
    metrics = roots @ roots.mT
    difference = vectors[:, :, :, None] - centroids[:, None, None]  # (books, rows, places, count, length)
    expected = torch.einsum("brpcd,pde,brpce->brpc", difference, metrics, difference).argmin(3)
    pulled = torch.einsum("brpd,pde->brpe", vectors, metrics)
    own = torch.einsum("bkd,pde,bke->bpk", centroids, metrics, centroids)
    assert torch.equal(metric_nearest.reference(pulled, own, centroids), expected)
    assert torch.equal(metric_nearest.cheapest(pulled, own, centroids), expected)


def test_the_reference_in_parts_is_the_reference(monkeypatch):
    operands = normal(6, 4, 5, 2), normal(6, 5, 7, seed=1).abs(), normal(6, 7, 2, seed=2)
    whole = metric_nearest.reference(*operands)
    monkeypatch.setattr(metric_nearest, "CHUNK", 300)
    assert torch.equal(metric_nearest.reference(*operands), whole)


def test_equal_costs_go_to_the_lowest_code():
    centroids = torch.tensor([[[1.0], [-1.0], [1.0]]])
    operands = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), centroids.square().sum(2)[:, None], centroids
    assert metric_nearest.cheapest(*operands).flatten().tolist() == [0, 0]
    assert metric_nearest.reference(*operands).flatten().tolist() == [0, 0]


def test_k_means_ends_where_every_centroid_is_its_vectors_weighted_centre():
    vectors, roots = normal(2, 30, 6, 2), normal(6, 2, 2, seed=2)
    metrics, used = roots @ roots.mT, torch.ones(2, 30, dtype=torch.bool)
    used[1, 20:] = False
    centroids = fit_centroids(vectors, metrics, used, 5, 200, 0.0)
    difference = vectors[:, :, :, None] - centroids[:, None, None]
    codes = torch.einsum("brpcd,pde,brpce->brpc", difference, metrics, difference).argmin(3)
    for book in range(2):
        for c in range(5):
            rows, places = torch.nonzero((codes[book] == c) & used[book, :, None], as_tuple=True)
            matrix = metrics[places].sum(0)
            pulled = torch.einsum("nde,ne->d", metrics[places], vectors[book, rows, places])
            torch.testing.assert_close(
                centroids[book, c], torch.linalg.solve(matrix, pulled), rtol=1e-4, atol=1e-4
            )


def test_more_steps_of_k_means_never_cost_more():
    vectors, roots = normal(1, 40, 6, 2), normal(6, 2, 2, seed=2)
    metrics, used = roots @ roots.mT, torch.ones(1, 40, dtype=torch.bool)
    costs = []
    for steps in range(1, 9):
        difference = (
            vectors[:, :, :, None] - fit_centroids(vectors, metrics, used, 6, steps, 0.0)[:, None, None]
        )
        costs.append(
            torch.einsum("brpcd,pde,brpce->brpc", difference, metrics, difference).amin(3).sum().item()
        )
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(costs))
    assert costs[-1] < 0.95 * costs[0]


def test_the_start_spans_the_mahalanobis_distances_of_the_rows_that_are_there():
    vectors = normal(1, 20, 3, 2) * torch.tensor([1.0, 30.0], dtype=torch.float64)
    used = torch.ones(1, 20, dtype=torch.bool)
    used[0, 15:], vectors[0, 15:] = False, 1e6
    points = vectors[0, :15].reshape(-1, 2)
    centred = points - points.mean(0)
    distance = ((centred @ torch.linalg.inv(centred.T @ centred)) * centred).sum(1)
    ranked = points[distance.argsort()]
    torch.testing.assert_close(spread_start(vectors, used, 5)[0], ranked[[0, 11, 22, 33, 44]])


def test_refit_is_least_squares_by_brute_force():
    problem = layer_problem(rows=6, columns=12)
    codes = torch.randint(0, 3, (6, 6), generator=torch.Generator().manual_seed(3))
    start = 0.05 * normal(2, 2, 4, 2, seed=4)  # centroid 3 is never used
    entries = Entries.of(codes, torch.arange(6) // 3, 3, start)
    found = refit(problem.weight, problem.hessian, entries, start, 60)
    root = torch.linalg.cholesky(problem.hessian)
    basis = [
        (entries.spread(one.view_as(start)) @ root).flatten()
        for one in torch.eye(start.numel(), dtype=torch.float64)
    ]
    best = torch.linalg.lstsq(
        torch.stack(basis, 1), (problem.weight @ root).flatten(), driver="gelsd"
    ).solution.view_as(start)
    used = entries.gather(torch.ones_like(problem.weight)) > 0
    torch.testing.assert_close(found[used], best[used], rtol=1e-6, atol=1e-8)
    assert torch.equal(found[~used], start[~used]) and not used[:, :, 3].any()


def test_refit_lowers_the_error_of_the_answer():
    problem = layer_problem(rows=64, columns=64, bits=2)
    errors = [
        layer_error(
            problem.weight, gptvq(codebook_steps=s).solve(problem).weight.dequantize(), problem.hessian
        )
        for s in (0, 25)
    ]
    assert errors[1] < errors[0]


def test_true_bits_are_the_papers():
    """2048 weights share 16 centroids of 2 entries of 8 bits and a float16 scale; with act-order, a group bit
    per vector.
    """
    problem = layer_problem(rows=32, columns=512, bits=2, dtype=torch.float32)
    for act_order, extra in ((False, 0), (True, 256)):
        weight = gptvq(act_order=act_order, kmeans_iterations=2).solve(problem).weight
        assert weight.rows_per_block == 8
        assert (
            bits_per_weight(weight.tensors(), 32 * 512) * 32 * 512
            == 32 * 256 * 4 + 8 * (16 * 2 * 8 + 16) + extra
        )


def test_the_overhead_sets_how_many_rows_share_a_codebook():
    rows = [
        gptvq(codebook_overhead=overhead).tile(torch.eye(256), 512, 16).rows_per_block
        for overhead in (0.25, 0.125, 0.0625)
    ]
    assert rows == [4, 8, 16]


def test_act_order_rounds_vectors_of_large_columns_first_and_stores_only_their_group():
    problem = layer_problem(rows=16, columns=64, bits=2)
    solver = gptvq(columns_per_group=16)
    tiling = solver.tile(problem.hessian, 16, 16)
    size = torch.diagonal(problem.hessian).view(-1, 2).sum(1)
    assert torch.equal(size[tiling.order], size.sort(descending=True).values)
    weight = solver.solve(problem).weight
    assert torch.equal(weight.group_index, tiling.group_index())
    again = RowVectors.restore(weight.tensors(), weight.layout())
    assert torch.equal(again.dequantize(), weight.dequantize()) and "group_index" in weight.tensors()


def test_decode_puts_centroids_where_the_codes_say():
    books = CoarseCodebooks.fit(normal(2, 2, 4, 2), 8)
    codes = torch.randint(0, 4, (5, 4), generator=torch.Generator().manual_seed(1))
    weight = RowVectors(codes, books, torch.tensor([1, 0, 0, 1]), 3, 7)
    for row in range(5):
        vectors = [books.values()[row // 3, weight.group_index[v], codes[row, v]] for v in range(4)]
        assert torch.equal(weight.dequantize()[row], torch.cat(vectors)[:7])


def test_trained_centroids_are_stored_to_within_half_a_step():
    weight = gptvq().solve(layer_problem(bits=2)).weight
    trained = {name: value + 0.01 * normal(*value.shape) for name, value in weight.trainable().items()}
    again = weight.with_trained(trained)
    step = again.codebooks.scale[:, :, None, None]
    assert ((again.trainable()["centroids"] - trained["centroids"]).abs() <= 0.5001 * step).all()
    assert torch.equal(again.codes, weight.codes)
    assert torch.equal(RowVectors.restore(again.tensors(), again.layout()).dequantize(), again.dequantize())


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 3), (33, 31), (7, 515)], ids=str)
def test_odd_shapes(shape, bits):
    problem = layer_problem(*shape, bits=bits, dtype=torch.float32)
    weight = gptvq().solve(problem).weight
    assert weight.dequantize().shape == shape and torch.isfinite(weight.dequantize()).all()
    assert torch.equal(
        RowVectors.restore(weight.tensors(), weight.layout()).dequantize(), weight.dequantize()
    )
    assert layer_error(problem.weight, weight.dequantize(), problem.hessian) < 0.3


def spoiled(name: str) -> tuple[Tensor, Tensor]:
    weight, hessian = (
        layer_problem(rows=20, columns=48, dtype=torch.float32).weight,
        correlated_hessian(48, 0, torch.float32),
    )
    if name == "dead columns":
        hessian[5:9], hessian[:, 5:9] = 0, 0
    elif name == "all dead":
        hessian.zero_()
    elif name == "rank one":
        hessian = torch.outer(hessian[0], hessian[0])
    elif name == "zero weight":
        weight = torch.zeros_like(weight)
    elif name == "constant weight":
        weight = torch.full_like(weight, 0.1)
    elif name == "equal rows":
        weight = weight[:1].expand(20, -1).clone()
    else:
        sizes = {
            "huge": (1e20, 1e18),
            "tiny": (1e-20, 1e-18),
            "huge weight": (1e25, 1.0),
            "uneven columns": (1.0, 1.0),
        }[name]
        weight, hessian = weight * sizes[0], hessian * sizes[1]
        if name == "uneven columns":
            scale = torch.logspace(-8, 8, 48)
            hessian = hessian * scale * scale[:, None]
    return weight, hessian


SPOILED = [
    "dead columns",
    "all dead",
    "rank one",
    "zero weight",
    "constant weight",
    "equal rows",
    "huge",
    "tiny",
    "huge weight",
    "uneven columns",
]


@pytest.mark.parametrize("name", SPOILED)
def test_finite_in_finite_out(name):
    problem = layer_problem(bits=2)
    weight, hessian = spoiled(name)
    rounded = gptvq().solve(replace(problem, weight=weight, hessian=hessian)).weight
    values = rounded.dequantize()
    assert torch.isfinite(values).all()
    assert (values - weight).double().norm() <= 1.01 * weight.double().norm() or name in (
        "rank one",
        "uneven columns",
    )
    assert torch.equal(RowVectors.restore(rounded.tensors(), rounded.layout()).dequantize(), values)


def test_what_makes_no_sense_is_skipped_with_a_reason():
    assert gptvq().skip_reason(scheme(bits=2)) is None
    for fields in (dict(group_size=16), dict(symmetric=True), dict(scale_bits=3), dict(outlier_ratio=0.01)):
        assert gptvq().skip_reason(scheme(**fields))
    assert "vector_length" in gptvq().skip_reason(scheme(bits=8))


@pytest.mark.parametrize(
    "field",
    [
        "vector_length",
        "columns_per_group",
        "codebook_overhead",
        "codebook_bits",
        "kmeans_iterations",
        "damping",
    ],
)
def test_values_out_of_range_are_named(field):
    with pytest.raises(ValueError, match=f"^{field}=-1"):
        gptvq(**{field: -1})
