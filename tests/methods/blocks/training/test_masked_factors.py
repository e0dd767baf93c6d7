"""Factors that are learned: the gradual mask, what commutes with rotations, margins."""

import math

import pytest
import torch

from methods.blocks.training.masked_factors import (
    Site,
    condition,
    dominance_margin,
    gradual_mask,
    mask_schedule,
)
from methods.contracts.seams import Heads, NormSeam, QueryKeySeam, ValueSeam

NORM = NormSeam("norm", ("a", "b"), width=6)
VALUES = ValueSeam(Heads("v", torch.arange(8).view(2, 4)), "o", query_heads=4)


def queries_and_keys(rotary: int, size: int = 8, norms=None) -> QueryKeySeam:
    return QueryKeySeam(
        Heads("q", torch.arange(4 * size).view(4, size)),
        Heads("k", torch.arange(2 * size).view(2, size)),
        rotary,
        norms,
    )


def random_parameters(site: Site, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    identity = site.identity(torch.device("cpu"))
    return {
        name: (value + 0.3 * torch.randn(value.shape, generator=generator)).double()
        for name, value in identity.items()
    }


@pytest.mark.parametrize("epoch", range(1, 6))
def test_the_mask_is_that_of_the_paper(epoch):
    size, epochs, stability = 7, 5, 0.25
    mask = gradual_mask(size, mask_schedule(epoch, epochs), stability, torch.zeros(1, dtype=torch.float64))
    for i in range(size):
        for j in range(size):
            expected = 1.0 if i == j else stability if abs(i - j) <= epoch / epochs * size else 0.0
            assert mask[i, j] == expected


def test_the_last_mask_lets_everything_in_and_none_is_only_the_diagonal():
    like = torch.zeros(1)
    assert (gradual_mask(5, 1.0, 0.1, like) > 0).all()
    assert torch.equal(gradual_mask(5, 0.0, 0.1, like), torch.eye(5))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "seam", [NORM, VALUES, queries_and_keys(0), queries_and_keys(8), queries_and_keys(4)]
)
def test_the_identity_changes_nothing(seam, full):
    site = Site(seam, full, shift=not isinstance(seam, QueryKeySeam))
    factor = site.factor(site.identity(torch.device("cpu")), 1.0, 0.1)
    expected = torch.ones(*site.heads, site.size)
    assert torch.equal(factor.matrix, torch.diag_embed(expected) if full else expected)
    assert factor.shift is None or not factor.shift.any()


def rotation(position: int, rotary: int, size: int) -> torch.Tensor:
    """RoPE on one head: pairs (i, i + rotary / 2), turned by position * 10000^(-2 i / rotary)."""
    matrix = torch.eye(size, dtype=torch.float64)
    for i in range(rotary // 2):
        angle, j = position * 10000 ** (-2 * i / rotary), i + rotary // 2
        matrix[i, i] = matrix[j, j] = math.cos(angle)
        matrix[i, j], matrix[j, i] = -math.sin(angle), math.sin(angle)
    return matrix


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("rotary", [4, 8])
def test_rotated_sites_commute_with_every_rotation(rotary, full):
    site = Site(queries_and_keys(rotary), full, shift=False)
    matrix = site.factor(random_parameters(site), 1.0, 0.5).matrix
    matrix = matrix if full else torch.diag_embed(matrix)
    for position in (1, 7, 1000):
        turned = rotation(position, rotary, 8)
        torch.testing.assert_close(matrix @ turned, turned @ matrix)
    if full and rotary == 4:
        assert (matrix[:, 4:, 4:] != 0).all(), "the unrotated rest is a full matrix"


def test_turns_wait_until_the_mask_reaches_their_distance():
    site = Site(queries_and_keys(8), True, shift=False)
    parameters = random_parameters(site)
    early, late = (site.factor(parameters, share, 0.5).matrix for share in (0.4, 0.5))
    assert torch.equal(early, torch.diag_embed(early.diagonal(dim1=-2, dim2=-1)))
    torch.testing.assert_close(late[:, 4:, :4].diagonal(dim1=-2, dim2=-1), 0.5 * parameters["turns"])


def test_heads_with_norms_share_one_diagonal_that_is_tied_in_pairs():
    site = Site(queries_and_keys(8, norms=("qn", "kn")), False, shift=False)
    matrix = site.factor(random_parameters(site), 1.0, 0.5).matrix
    assert matrix.shape == (8,) and torch.equal(matrix[:4], matrix[4:])


def test_diagonals_stay_off_zero():
    site = Site(VALUES, True, shift=False)
    parameters = {"matrix": torch.zeros(2, 4, 4) - 1}
    site.keep_invertible_(parameters)
    assert (parameters["matrix"].diagonal(dim1=-2, dim2=-1) == 0.01).all() and parameters["matrix"][
        0, 0, 1
    ] == -1


def test_margin_and_condition():
    matrix = torch.tensor([[[2.0, -0.5], [0.25, 1.0]], [[1.0, 0.9], [0.0, 4.0]]])
    assert dominance_margin(matrix) == pytest.approx(0.1)
    assert condition(torch.diag(torch.tensor([4.0, 0.5]))) == pytest.approx(8)
