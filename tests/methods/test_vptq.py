"""VPTQ against its algorithm written out, and what must hold whatever the data; then what goes on from it."""

from dataclasses import replace

import pytest
import torch

from methods.contracts.problem import LayerProblem
from methods.contracts.scheme import OutlierStructure
from methods.gptq import triangular_feedback
from methods.kernels.nearest import nearest
from methods.solving.linalg import layer_error, upper_factor
from methods.vectors.codebook import KMeans
from methods.vectors.descent import Span, Sweeper
from methods.vectors.frame import Normalize
from methods.vptq import VPTQ
from methods.vptq_further import VPTQFurther
from methods.weights.bits_per_weight import bits_per_weight
from methods.weights.book import Book
from methods.weights.grid import Grid
from methods.weights.vectors import VectorWeight
from tests.helpers.oracles import textbook_gptq, textbook_vptq
from tests.helpers.problems import correlated_hessian, layer_problem, scheme

PAPER = VPTQ(
    vector_length=4, index_bits=5, outlier_vector_length=2, outlier_index_bits=4, column_groups=1, permute=False, normalize=Normalize.none,  # noqa: E501
    row_scale=False, conditional=False, beam=1, damping=0.01, block_size=16, kmeans_iterations=20, kmeans_tolerance=1e-4, seed=0,  # noqa: E501
)  # fmt: skip
OURS = replace(PAPER, permute=True, row_scale=True, conditional=True, beam=4)
FURTHER = VPTQFurther(
    start=OURS,
    rounds=8,
    sweeps=3,
    refit_steps=10,
    tolerance=1e-4,
    shakes=5,
    shake_size=0.1,
    final_sweeps=5,
    beam=4,
    block_size=16,
)
OUTLIERS = dict(outlier_ratio=0.1, outlier_structure=OutlierStructure.column)


def on_disk(weight: VectorWeight) -> VectorWeight:
    return VectorWeight.restore(weight.tensors(), weight.layout())


def damped(hessian: torch.Tensor) -> torch.Tensor:
    return hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)


@pytest.mark.parametrize("permute", [False, True])
@pytest.mark.parametrize("bits", [1, 2])
def test_equals_the_textbook(bits, permute):
    problem = layer_problem(bits=2)
    index_bits = 8 if bits == 1 else 5  # one codebook of 256, or 32 and a residual one of 8
    solver = replace(PAPER, permute=permute, index_bits=index_bits)
    order = (
        torch.argsort(problem.hessian.diagonal(), descending=True, stable=True)
        if permute
        else torch.arange(64)
    )
    weight, hessian = problem.weight[:, order], problem.hessian[order][:, order]
    found = solver.solve(problem).weight
    book, ones = found.parts[0].book, torch.ones(24, dtype=torch.float64)
    kmeans, importance = KMeans(20, 1e-4, 0), damped(hessian).diagonal()
    torch.testing.assert_close(
        book.centroids,
        kmeans.fit(weight.T.contiguous(), importance, ones, 4, 2**index_bits),
        rtol=0,
        atol=1e-3 * weight.abs().max(),
    )
    if bits == 2:
        _, missed = textbook_vptq(weight, hessian, book.centroids, None, 0.01, 16)
        residual = kmeans.fit(missed.T.contiguous(), importance, ones, 4, 8)
        torch.testing.assert_close(book.residual, residual, rtol=0, atol=1e-3 * residual.abs().max())
    expected, _ = textbook_vptq(weight, hessian, book.centroids, book.residual, 0.01, 16)
    torch.testing.assert_close(found.dequantize()[:, order], expected, rtol=0, atol=1e-12)


def first_sweep(problem: LayerProblem, book: Book, hessian: torch.Tensor, block_size: int = 16) -> tuple:
    feedback = triangular_feedback(upper_factor(hessian, 0.01).upper)
    offset, codes = Sweeper(feedback, True, [Span(0, 64, book)], block_size, 1).first_sweep(
        problem.weight.T.contiguous()
    )
    return problem.weight + offset.T, codes[0][0]


@pytest.mark.parametrize("block_size", [1, 7, 64])
def test_vectors_of_one_on_a_uniform_codebook_are_gptq(block_size):
    problem = layer_problem()
    scale, zero = (
        torch.full((24, 1), 0.03, dtype=torch.float64),
        torch.full((24, 1), 4.0, dtype=torch.float64),
    )
    grid = Grid(3, scale, zero, torch.zeros(64, dtype=torch.int64))
    levels = ((torch.arange(8) - 4.0) * 0.03).double()[:, None]
    found, codes = first_sweep(problem, Book(levels, None), problem.hessian, block_size)
    expected = textbook_gptq(problem.weight, problem.hessian, grid, 0.01)
    assert torch.equal(codes.T, grid.encode(expected).long())
    torch.testing.assert_close(found, expected)


def test_without_correlations_the_pass_is_plain_assignment():
    problem, book = (
        layer_problem(),
        Book(
            0.05 * torch.randn(20, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64), None
        ),
    )
    _, codes = first_sweep(problem, book, torch.eye(64, dtype=torch.float64))
    assert torch.equal(codes.reshape(-1), nearest(problem.weight.T.reshape(-1, 6), book.centroids))


@pytest.mark.parametrize(
    "solver", [replace(PAPER, index_bits=7), replace(FURTHER, start=replace(PAPER, index_bits=7))]
)
@pytest.mark.parametrize("rows", [24, 27])
def test_weights_on_a_codebook_come_back_unchanged(solver, rows):
    problem = layer_problem(rows=rows)
    generator = torch.Generator().manual_seed(0)
    book = torch.randn(100, 4, generator=generator).half().double()
    codes = torch.randint(100, (64, 7), generator=generator)
    codes[:20, :5] = torch.arange(100).view(20, 5)  # every centroid is met as a whole vector
    weight = book[codes].reshape(64, 28).T[:rows].contiguous()
    problem = replace(problem, weight=weight)
    assert torch.equal(solver.solve(problem).weight.dequantize(), weight)


@pytest.mark.parametrize(
    "solver", [PAPER, replace(OURS, normalize=Normalize.affine, column_groups=3), FURTHER]
)
@pytest.mark.parametrize("rows", [24, 25, 3])
@pytest.mark.parametrize("form", [dict(bits=2), dict(bits=3), dict(bits=2, **OUTLIERS)], ids=str)
def test_what_is_stored_decodes_to_what_was_solved(solver, rows, form):
    problem = layer_problem(rows=rows, dtype=torch.float32, **form)
    weight = solver.solve(problem).weight
    assert torch.equal(on_disk(weight).dequantize(), weight.dequantize())
    assert all(stage.half().float().equal(stage) for part in weight.parts for stage in part.book.stages)


def test_bits_by_hand():
    problem = layer_problem(rows=30, bits=3, **OUTLIERS)  # of 64 columns 6 are outliers
    solver = replace(OURS, column_groups=2, normalize=Normalize.affine)
    weight = solver.solve(problem).weight
    # 15 vectors of 2 rows in 6 columns, filled up to 96; 8 of 4 rows in two groups of 29
    codes = 96 * 4 + 2 * (29 * 8 * (5 + 7))
    # the number of its part, scale and bias of each; scales of rows of vectors
    columns = 64 * 2 + 64 * (8 + 16) + 8 * 8
    books = 16 * (16 * 2 + 2 * (32 * 4 + 128 * 4))
    stored = bits_per_weight(weight.tensors(), 30 * 64) * 30 * 64
    assert codes + columns + books == stored


def test_outliers_are_the_columns_of_largest_diagonal():
    problem = layer_problem(bits=2, **OUTLIERS)
    for solver in (PAPER, OURS):
        solution = solver.solve(problem)
        first = solution.weight.parts[0]
        assert first.columns.tolist() == problem.hessian.diagonal().topk(6).indices.sort().values.tolist()
        assert first.book.centroids.shape == (16, 2) and first.book.residual is None
        assert solution.stats["outliers"] == 6 / 64


def test_normalisation_is_the_scaled_problem():
    problem = layer_problem()
    sized = replace(problem, weight=problem.weight * (1 + torch.arange(64) / 8.0))
    found = replace(PAPER, normalize=Normalize.scale).solve(sized).weight
    scaled = LayerProblem(
        sized.weight / found.scale, sized.hessian * found.scale[:, None] * found.scale, sized.scheme
    )
    torch.testing.assert_close(found.dequantize(), PAPER.solve(scaled).weight.dequantize() * found.scale)


def odd_problems():
    generator = torch.Generator().manual_seed(0)
    hessian = correlated_hessian(64, 0)
    dead = hessian.clone()
    dead[[3, 40]], dead[:, [3, 40]] = 0, 0
    weight = 0.05 * torch.randn(24, 64, generator=generator, dtype=torch.float64)
    yield "dead columns", weight, dead
    yield "all dead", weight, torch.zeros_like(hessian)
    yield "rank-deficient", weight, correlated_hessian(64, 1, tokens=5)
    yield "one column", weight[:, :1], hessian[:1, :1]
    yield "two columns", weight[:, :2], hessian[:2, :2]
    yield "rows fewer than a vector", weight[:3], hessian
    yield "one row", weight[:1], hessian
    yield "fewer vectors than centroids", weight[:8, :3], hessian[:3, :3]
    yield "huge", 1e20 * weight, hessian
    yield "tiny", 1e-20 * weight, hessian
    yield "huge Hessian", weight, 1e12 * hessian
    yield "zeros", torch.zeros_like(weight), hessian
    yield "constant rows", torch.arange(24.0).double()[:, None].expand(24, 64).contiguous(), hessian
    yield "one huge weight", torch.where(torch.arange(64) == 5, 1e5, 1.0) * weight, hessian
    yield "zero rows", weight * (torch.arange(24) >= 8)[:, None], hessian


@pytest.mark.parametrize(
    "of_scheme", [dict(bits=2), dict(bits=3), dict(bits=2, **OUTLIERS)], ids=["one", "two", "outliers"]
)
@pytest.mark.parametrize(
    "solver",
    [PAPER, replace(OURS, normalize=Normalize.affine, column_groups=5), FURTHER],
    ids=["paper", "ours", "further"],
)
def test_odd_problems_have_finite_answers(solver, of_scheme):
    for name, weight, hessian in odd_problems():
        problem = LayerProblem(weight.float(), hessian.float(), scheme(**of_scheme))
        found = solver.solve(problem).weight
        assert torch.isfinite(found.dequantize()).all(), name
        assert torch.equal(on_disk(found).dequantize(), found.dequantize()), name
        lost = (found.dequantize().double() - weight).square().sum()
        assert lost <= 1.0001 * weight.square().sum() or name in ("one huge weight", "rank-deficient"), name


def test_float32_is_close_to_float64():
    errors = []
    for dtype in (torch.float32, torch.float64):
        problem = layer_problem(dtype=dtype)
        errors.append(
            layer_error(problem.weight, FURTHER.solve(problem).weight.dequantize(), problem.hessian)
        )
    assert errors[0] == pytest.approx(errors[1], rel=0.1)


def test_global_randomness_is_left_alone():
    before = torch.random.get_rng_state()
    first, again, other = (
        solver.solve(layer_problem()).weight.dequantize()
        for solver in (FURTHER, FURTHER, replace(FURTHER, start=replace(OURS, seed=1)))
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("of_scheme, said", [
    (dict(group_size=16), "group_size=16"), (dict(symmetric=True), "symmetric"), (dict(scale_bits=3), "scale_bits=3"),  # noqa: E501
    (dict(outlier_ratio=0.01), "outlier_structure"), (dict(bits=8), "27 beside index_bits=5"),
])  # fmt: skip
def test_schemes_that_make_no_sense_are_skipped(of_scheme, said):
    for solver in (PAPER, FURTHER):
        assert said in solver.skip_reason(scheme(**of_scheme))
        assert solver.skip_reason(scheme(**OUTLIERS)) is None


@pytest.mark.parametrize("field, value", [
    ("vector_length", 0), ("index_bits", 17), ("outlier_index_bits", 0), ("column_groups", 0), ("beam", 0), ("damping", -1.0),  # noqa: E501
    ("kmeans_iterations", -1), ("kmeans_tolerance", -1.0),
])  # fmt: skip
def test_bad_fields_are_named(field, value):
    with pytest.raises(ValueError, match=f"^{field}={value}"):
        replace(PAPER, **{field: value})
