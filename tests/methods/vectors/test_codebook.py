"""Weighted k-means: optimal where the optimum is known, blind to padding, the same every time."""

import pytest
import torch

from methods.vectors import codebook
from methods.vectors.codebook import KMeans, split_vectors, storable_centroids

PLAIN = KMeans(iterations=100, tolerance=0.0, seed=0)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ones(count: int) -> torch.Tensor:
    return torch.ones(count, dtype=torch.float64)


def cost(matrix: torch.Tensor, importance: torch.Tensor, centroids: torch.Tensor) -> float:
    vectors = matrix.reshape(len(matrix), -1, centroids.shape[1])
    return (torch.cdist(vectors, centroids).square().amin(2).sum(1) * importance).sum().item()


def test_clear_clusters_are_found():
    centres = 10 * normal(6, 3)
    labels = torch.randint(6, (40, 5), generator=torch.Generator().manual_seed(1))
    labels.view(-1)[:6] = torch.arange(6)
    matrix = (centres[labels] + 0.01 * normal(40, 5, 3)).reshape(40, 15)
    found = PLAIN.fit(matrix, ones(40), ones(15), 3, 6)
    expected = torch.stack([matrix.reshape(-1, 3)[labels.view(-1) == k].mean(0) for k in range(6)])
    assert torch.cdist(expected, found).amin(1).max() < 1e-12


def test_one_centroid_is_the_weighted_mean():
    matrix, importance, rows = (
        normal(7, 6),
        0.1 + normal(7).abs(),
        (0.5 + normal(3, seed=2).abs()).repeat_interleave(2),
    )
    weights = torch.outer(importance, rows[::2]).reshape(-1, 1)
    expected = (matrix.reshape(-1, 2) * weights).sum(0) / weights.sum()
    torch.testing.assert_close(PLAIN.fit(matrix, importance, rows, 2, 1)[0], expected)


def test_every_vector_its_own_centroid():
    matrix = normal(4, 6)
    found = PLAIN.fit(matrix, ones(4), ones(6), 2, 50)
    assert found.shape == (12, 2)
    assert cost(matrix, ones(4), found) < 1e-25


def test_no_more_centroids_than_different_vectors():
    matrix = torch.tensor([[1.0, 2.0, 1.0, 2.0], [3.0, 4.0, 1.0, 2.0]], dtype=torch.float64)
    found = PLAIN.fit(matrix, ones(2), ones(4), 2, 8)
    assert sorted(found.tolist()) == [[1.0, 2.0], [3.0, 4.0]]
    assert PLAIN.fit(torch.zeros(3, 8, dtype=torch.float64), ones(3), ones(8), 4, 16).tolist() == [[0.0] * 4]


def test_iterations_lower_the_weighted_cost():
    matrix, importance = normal(30, 24), 0.05 + normal(30).abs()
    costs = [
        cost(matrix, importance, KMeans(n, 0.0, 0).fit(matrix, importance, ones(24), 4, 20))
        for n in (0, 1, 3, 30)
    ]
    assert costs == sorted(costs, reverse=True) and costs[0] > costs[-1]


def test_importance_decides_where_centroids_go():
    matrix, importance = normal(40, 24), torch.where(torch.arange(40) < 4, 1e4, 1.0).double()
    weighted, plain = (PLAIN.fit(matrix, weights, ones(24), 4, 12) for weights in (importance, ones(40)))
    assert cost(matrix[:4], ones(4), weighted) < 0.5 * cost(matrix[:4], ones(4), plain)


def test_short_vectors_count_only_what_they_have():
    """Rows 4 of 5 with vectors of 2: the fifth belongs to a vector of one coordinate, and says nothing about
    second coordinates.
    """
    whole = torch.tensor([[1.0, 7.0, 5.0, -3.0]] * 6, dtype=torch.float64)
    matrix = torch.cat(
        [whole, torch.tensor([[1.0], [1.2], [0.8], [5.0], [5.4], [4.6]], dtype=torch.float64)], 1
    )
    found = PLAIN.fit(matrix, ones(6), ones(5), 2, 2)
    torch.testing.assert_close(
        found[found[:, 0].argsort()], torch.tensor([[1.0, 7.0], [5.0, -3.0]], dtype=torch.float64)
    )


def test_fewer_rows_than_the_vector_length():
    matrix = torch.tensor([[1.0, 2.0], [1.0, 2.0], [5.0, 6.0]], dtype=torch.float64)
    found = PLAIN.fit(matrix, ones(3), ones(2), 4, 2)
    assert sorted(found[:, :2].tolist()) == [[1.0, 2.0], [5.0, 6.0]]


def test_empty_clusters_move_to_the_worst_vectors():
    matrix = torch.cat([normal(50, 2), torch.tensor([[100.0, 0.0], [0.0, 100.0]], dtype=torch.float64)])
    centroids = torch.tensor([[0.0, 0.0], [500.0, 500.0], [-500.0, 500.0]], dtype=torch.float64)
    found = codebook._Lloyd([(matrix, ones(52))]).run(centroids, 20, 0.0)
    for far in matrix[-2:]:
        assert (found - far).abs().sum(1).min() < 1e-9


def test_same_seed_same_answer_and_no_global_state():
    matrix, before = normal(60, 40), torch.random.get_rng_state()
    first, again, other = (KMeans(5, 0.0, seed).fit(matrix, ones(60), ones(40), 4, 8) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_beginning_on_a_sample_costs_little(monkeypatch):
    matrix = normal(100, 80)
    full = cost(matrix, ones(100), PLAIN.fit(matrix, ones(100), ones(80), 4, 16))
    monkeypatch.setattr(codebook, "SAMPLE", 20)
    assert cost(matrix, ones(100), PLAIN.fit(matrix, ones(100), ones(80), 4, 16)) < 1.03 * full


def test_draws_several_at_a_time(monkeypatch):
    monkeypatch.setattr(codebook, "SEED_ROUNDS", 4)
    matrix = normal(40, 20)
    assert 0.8 * 30 <= len(KMeans(0, 0.0, 0).fit(matrix, ones(40), ones(20), 2, 30)) <= 30


@pytest.mark.parametrize("rows", [8, 9, 11, 3])
def test_vectors_are_split_without_loss(rows):
    matrix = normal(5, rows)
    whole, short = split_vectors(matrix, 4)
    assert torch.equal(torch.cat([whole.reshape(5, -1), short], 1), matrix)


@pytest.mark.parametrize("scale, dtype", [(1.0, torch.float16), (1e-9, torch.float32), (1e9, torch.float32)])
def test_centroids_are_stored_in_what_holds_them(scale, dtype):
    values = scale * normal(50, 4)
    kept = storable_centroids(values)
    assert torch.equal(kept.to(dtype).double(), kept)
    assert (kept - values).abs().max() <= 1e-3 * values.abs().max()


@pytest.mark.parametrize("fields", [dict(iterations=-1), dict(tolerance=-0.1)])
def test_bad_fields_are_named(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        KMeans(**{**dict(iterations=1, tolerance=0.0, seed=0), **fields})
