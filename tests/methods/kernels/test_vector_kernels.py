"""The vector kernels against their torch references, at shapes that are no multiple of anything."""

import pytest
import torch

from methods.kernels import nearest, vector_feedback
from methods.kernels.vector_feedback import NO_CODE
from methods.weights.book import Book

# vectors, length, k
SEARCHES = [
    (1, 1, 1),
    (300, 1, 16),
    (131, 2, 9),
    (77, 3, 70),
    (260, 4, 256),
    (64, 8, 65),
    (129, 6, 40),
    (5, 12, 130),
]
PASSES = [
    (1, 1, 1, 3, 0),
    (9, 13, 4, 8, 0),
    (20, 24, 6, 70, 0),
    (7, 600, 2, 5, 0),
    (6, 3, 8, 9, 0),
    (10, 31, 4, 16, 5),
    (5, 48, 12, 6, 66),
]


def search_operands(
    count: int, length: int, centroids: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    drawn = (
        torch.randn(size, length, generator=generator, dtype=torch.float64).to(dtype)
        for size in (count, centroids)
    )
    return tuple(drawn)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SEARCHES, ids=str)
def test_nearest(shape, dtype):
    vectors, codebook = search_operands(*shape, dtype)
    expected = (vectors[:, None].double() - codebook.double()).square().sum(2).argmin(1)
    assert torch.equal(nearest.nearest(vectors, codebook), expected)
    assert torch.equal(nearest.reference(vectors, codebook), expected)


def test_reference_in_chunks(monkeypatch):
    vectors, codebook = search_operands(100, 3, 7, torch.float64)
    whole = nearest.reference(vectors, codebook)
    monkeypatch.setattr(nearest, "CHUNK", 60)
    assert torch.equal(nearest.reference(vectors, codebook), whole)


@pytest.mark.parametrize("search", [nearest.nearest, nearest.reference])
def test_first_of_equal_centroids_wins(search):
    vectors, codebook = search_operands(50, 4, 6, torch.float32)
    assert torch.equal(search(vectors, torch.cat([codebook, codebook])), search(vectors, codebook))


def pass_operands(
    columns: int, rows: int, length: int, k: int, k2: int, dtype: torch.dtype, held: bool
) -> list:
    generator = torch.Generator().manual_seed(columns)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    weight, pull, factors = (
        normal(columns, rows),
        0.1 * normal(columns, rows),
        0.1 * normal(columns, columns + 3)[:, :columns],
    )
    book = Book(normal(k, length), 0.3 * normal(k2, length) if k2 else None)
    codes = [torch.full((columns, -(-rows // length)), NO_CODE, dtype=torch.int64) for _ in book.stages]
    offset = torch.zeros_like(weight)
    if held:
        codes = [
            torch.randint(len(stage), code.shape, generator=generator)
            for stage, code in zip(book.stages, codes, strict=True)
        ]
        offset = (book.decode(tuple(codes), rows) - weight).contiguous()
    return [weight, pull, offset, torch.empty_like(weight), tuple(codes), factors, book]


def both_passes(kernel, shape, dtype, held, beam):
    found = []
    for run in (vector_feedback.reference, kernel):
        operands = pass_operands(*shape, dtype, held)
        moved = int(run(*operands, beam))
        found.append((moved, operands[2], operands[3], *operands[4]))
    return found


def check_pass(kernel, shape, dtype, held, beam):
    expected, found = both_passes(kernel, shape, dtype, held, beam)
    assert found[0] == expected[0]
    for left, right in zip(found[3:], expected[3:], strict=True):
        assert torch.equal(left, right)
    for left, right in zip(found[1:3], expected[1:3], strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("shape", PASSES, ids=str)
def test_cpu_pass(shape, held, dtype):
    for beam in (1, 3):
        check_pass(vector_feedback.round_vectors, shape, dtype, held, beam)


def test_short_vectors_look_at_the_coordinates_they_have():
    book = Book(torch.tensor([[1.0, 100.0], [3.0, 0.0]]), None)
    weight = torch.tensor([[3.0, 0.0, 1.2]])  # the last vector has one coordinate
    offset, codes = torch.zeros_like(weight), (torch.full((1, 2), NO_CODE),)
    vector_feedback.round_vectors(
        weight, torch.zeros_like(weight), offset, torch.empty_like(weight), codes, torch.zeros(1, 1), book, 1
    )
    assert codes[0].tolist() == [[1, 0]]
    assert (weight + offset).tolist() == [[3.0, 0.0, 1.0]]


@pytest.mark.parametrize("rows", [12, 13])
def test_a_beam_of_all_centroids_finds_the_best_pair(rows):
    operands = pass_operands(1, rows, 4, 9, 7, torch.float64, False)
    weight, pull, offset, _, codes, _, book = operands
    vector_feedback.round_vectors(*operands, 9)
    pairs = (book.centroids[:, None] + book.residual).reshape(-1, 4)
    for start in range(0, rows, 4):
        target = (weight + pull)[0, start : start + 4]
        errors = (target - pairs[:, : len(target)]).square().sum(1)
        assert codes[0][0, start // 4] * 7 + codes[1][0, start // 4] == errors.argmin()
        torch.testing.assert_close(
            (weight + offset)[0, start : start + 4], pairs[errors.argmin(), : len(target)]
        )


def test_held_pairs_stay_unless_another_is_nearer():
    book = Book(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]]))  # 1 is both 0 + 1 and 1 + 0
    weight = torch.tensor([[1.0, 1.0, 0.0]])
    codes = torch.tensor([[0, 1, 1]]), torch.tensor([[1, 0, 1]])
    offset = book.decode(codes, 3) - weight
    moved = vector_feedback.round_vectors(
        weight, torch.zeros_like(weight), offset, torch.empty_like(weight), codes, torch.zeros(1, 1), book, 2
    )
    assert moved == 1 and codes[0].tolist() == [[0, 1, 0]] and codes[1].tolist() == [[1, 0, 0]]
