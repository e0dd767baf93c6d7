"""The factor reproduces the damped Hessian; damping rises when it must; dead columns touch nothing."""

import pytest
import torch

from methods.solving.linalg import energy, layer_error, live_hessian, upper_factor
from tests.helpers.problems import correlated_hessian


def test_factor_and_its_inverse():
    hessian = correlated_hessian(40, 0)
    factor = upper_factor(hessian, 0.01)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(40, dtype=torch.float64)
    assert torch.equal(factor.upper, factor.upper.triu())
    torch.testing.assert_close(factor.upper @ factor.upper.T, damped)
    inverse = torch.linalg.inv(factor.upper)  # the U of GPTQ: inverse(H) = U^T U
    torch.testing.assert_close(inverse.T @ inverse, torch.linalg.inv(damped))
    assert factor.damping == 0.01 and factor.fallbacks == ()


def test_damping_rises_tenfold_and_says_so():
    indefinite = correlated_hessian(12, 1) - 0.5 * torch.eye(12, dtype=torch.float64)
    factor = upper_factor(indefinite, 0.001)
    rises = torch.log10(torch.tensor(factor.damping / 0.001))
    assert rises >= 1 and rises == pytest.approx(round(rises.item()), abs=1e-6)
    assert factor.fallbacks == (f"damping raised from 0.001 to {factor.damping:g}",)


def test_no_damping_at_all_can_rise_too():
    factor = upper_factor(torch.ones(6, 6), 0.0)  # rank one
    assert torch.isfinite(factor.upper).all()


def test_dead_columns_are_cut_off():
    hessian = correlated_hessian(10, 2)
    hessian[3], hessian[:, 3] = 0, 0
    upper = upper_factor(hessian, 0.01).upper
    assert upper[3, 3] > 0
    assert upper[3].count_nonzero() == 1 and upper[:, 3].count_nonzero() == 1
    matrix, scale = live_hessian(torch.zeros(4, 4))
    assert torch.equal(matrix, torch.eye(4)) and scale == 1


def test_infinite_hessian_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        upper_factor(torch.full((3, 3), torch.inf), 0.01)


def test_layer_error_is_the_output_error():
    generator = torch.Generator().manual_seed(0)
    inputs, weight = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((50, 8), (5, 8))
    )
    rounded = weight.round()
    hessian = inputs.T @ inputs / 50
    expected = ((inputs @ (weight - rounded).T) ** 2).sum() / ((inputs @ weight.T) ** 2).sum()
    assert layer_error(weight, rounded, hessian) == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(energy(weight, hessian), ((inputs @ weight.T) ** 2).mean(0))
    assert layer_error(torch.zeros(2, 8), torch.zeros(2, 8), hessian) == 0
