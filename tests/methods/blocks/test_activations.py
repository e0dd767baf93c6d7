"""The rounding of activations against its definition."""

import math

import pytest
import torch

from methods.blocks.activations import ActivationFormat
from methods.contracts.scheme import ActRange
from methods.kernels import token_rounding
from methods.kernels.triton_modules import triton_import_module


def token_format(bits: int, symmetric: bool = False) -> ActivationFormat:
    return ActivationFormat(bits, symmetric, ActRange.token)


def naive(x, bits, symmetric=False, ends=None):
    """The definition, with straight-through rounding for autograd; the last axis shares a grid unless end
    points are given.
    """

    def straight(value):
        return value + (value.round() - value).detach()

    low, high = (x.min(-1, keepdim=True).values, x.max(-1, keepdim=True).values) if ends is None else ends
    if symmetric:
        q, largest = 2 ** (bits - 1) - 1, torch.maximum(-low, high)
        scale = largest / q
        return straight(x / scale).clamp(-q, q) * scale
    scale = (high - low) / (2**bits - 1)
    zero = -straight(low / scale)
    return ((straight(x / scale) + zero).clamp(0, 2**bits - 1) - zero) * scale


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", range(2, 9))
def test_tokens_are_rounded_and_differentiated_as_defined(bits, symmetric):
    # 0 is not always within the range
    offsets = torch.tensor([0.0, 3.0, -20.0, 0.4, 1e-3], dtype=torch.float64).view(5, 1, 1)
    x = (normal(5, 3, 40) + offsets).requires_grad_()
    expected, outer = naive(x, bits, symmetric), normal(5, 3, 40, seed=1)
    (wanted,) = torch.autograd.grad(expected, x, outer)
    found = token_format(bits, symmetric).round(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert all(len(token.unique()) <= 2**bits - symmetric for token in found.detach().flatten(0, 1))
    torch.testing.assert_close(torch.autograd.grad(found, x, outer)[0], wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("symmetric", [False, True])
def test_one_grid_for_a_whole_tensor(symmetric):
    x, outer = normal(2, 5, 12).add(1).requires_grad_(), normal(2, 5, 12, seed=1)
    expected = naive(x.flatten(), 4, symmetric).view_as(x)
    found = ActivationFormat(4, symmetric, ActRange.tensor).round(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    wanted = torch.autograd.grad(expected, x, outer)[0]
    torch.testing.assert_close(torch.autograd.grad(found, x, outer)[0], wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("symmetric", [False, True])
def test_fixed_end_points_cut_and_let_no_gradient_beyond(symmetric):
    x, outer = normal(6, 50).requires_grad_(), normal(6, 50, seed=1)
    ends = torch.tensor(-0.7, dtype=torch.float64), torch.tensor(1.1, dtype=torch.float64)
    expected = naive(x, 4, symmetric, ends)
    found = ActivationFormat(4, symmetric, ActRange.tensor).round_between(x, *ends)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    gradient = torch.autograd.grad(found, x, outer)[0]
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, x, outer)[0], rtol=0, atol=1e-12)
    beyond = (x > 1.5) | (x < -1.5)
    assert (
        beyond.any()
        and not gradient[beyond].any()
        and torch.equal(gradient[x.abs() < 0.5], outer[x.abs() < 0.5])
    )


def test_an_extreme_that_rounds_past_the_last_code():
    """Half-way cases go to even codes: 0.5 to 0 and 15.5 to 16, which is one too many."""
    x = torch.tensor([[0.5, 3.2, 7.9, 15.5]], dtype=torch.float64, requires_grad=True)
    expected, found = naive(x, 4), token_format(4).round(x)
    assert found.tolist() == expected.tolist() == [[0, 3, 8, 15]]
    for outer in ([[0.0, 0, 0, 1]], [[1.0, -2, 0.5, 3]]):
        gradients = [
            torch.autograd.grad(y, x, torch.tensor(outer, dtype=torch.float64), retain_graph=True)[0]
            for y in (found, expected)
        ]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@pytest.mark.parametrize("symmetric", [False, True])
def test_tokens_without_a_range_come_back_exactly(symmetric):
    values = torch.tensor([0.0, 1 / 3, -7.7, 1e-30, -1e30, 65504.0])
    x = values[:, None].repeat(1, 9).requires_grad_()
    found = token_format(3, symmetric).round(x)
    assert torch.equal(found, x)
    assert torch.equal(torch.autograd.grad(found.sum(), x)[0], torch.ones_like(x))
    end = torch.tensor(2.0)
    static = ActivationFormat(3, symmetric, ActRange.tensor)
    assert (
        torch.equal(static.round_between(torch.tensor([[1.0, 2.0, 3.0]]), end, end), torch.full((1, 3), 2.0))
        or symmetric
    )
    assert not static.round_between(torch.tensor([[1.0, -2.0]]), 0 * end, 0 * end).any()
    assert token_format(3).round(torch.empty(0, 4)).shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_rounded_in_float32(dtype):
    x = (normal(7, 33) * 3 + 1).to(dtype).requires_grad_()
    found = token_format(4).round(x)
    assert found.dtype == dtype and torch.equal(found, token_format(4).round(x.float()).to(dtype))
    assert torch.autograd.grad(found.sum(), x)[0].dtype == dtype


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_so_and_stays_alone(bad):
    x = normal(4, 20, dtype=torch.float32)
    x[1, 3] = bad
    for symmetric in (False, True):
        found = token_format(4, symmetric).round(x)
        assert not found[1, 3].isfinite() and torch.equal(
            found[[0, 2, 3]], token_format(4, symmetric).round(x[[0, 2, 3]])
        )
        ends = torch.tensor(-1.0), torch.tensor(1.0)
        assert (
            ~ActivationFormat(4, symmetric, ActRange.tensor).round_between(x, *ends).isfinite()
        ).nonzero().tolist() == [[1, 3]]
        x.requires_grad_()
        torch.autograd.grad(token_format(4, symmetric).round(x).sum(), x)
        x = x.detach()


@pytest.mark.parametrize(
    "symmetric, ends",
    [(False, None), (True, None), (False, (-1.0, 1.5)), (True, (-1.0, 1.5)), (False, (1.0, 1.0))],
)
def test_the_kernel_and_the_reference_agree(symmetric, ends):
    """The reference is what other devices run."""
    x, outer = normal(150, 64, dtype=torch.float32) * 2, normal(150, 64, seed=1, dtype=torch.float32)
    x[5] = 3.0
    options = (14 if symmetric else 15, symmetric, ends and tuple(map(torch.tensor, ends)))
    assert torch.equal(token_rounding.rounded(x, *options), token_rounding.reference(x, *options))
    found, expected = (
        token_rounding.gradient(x, outer, *options),
        token_rounding.reference_gradient(x, outer, *options),
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def check_kernel(kernel, device: str, width: int, dtype: torch.dtype, symmetric: bool) -> None:
    """Of another device, against the reference: bit for bit in float32. Called by tests of Triton in its
    interpreter, too.
    """
    x, outer = normal(20, width, dtype=torch.float32) * 2, normal(20, width, seed=1, dtype=torch.float32)
    x[3], x[4], x[5] = 0.0, 1 / 3, x[5] * 1e-3 + 20
    x[6] = torch.linspace(0.5, 15.5 if not symmetric else 7.0, width)
    x, outer = x.to(device, dtype), outer.to(device, dtype)
    steps, found, gradient = 14 if symmetric else 15, torch.empty_like(x), torch.empty_like(x)
    kernel.rounded(x, steps, symmetric, found)
    expected = token_rounding.reference(x.float(), steps, symmetric, None).to(dtype)
    # the interpreter cuts to bfloat16, where devices round
    loose = 2**-7 if dtype is torch.bfloat16 and device == "cpu" else 0
    torch.testing.assert_close(found, expected, rtol=loose, atol=0)
    kernel.gradient(x, outer, steps, symmetric, gradient)
    expected = token_rounding.reference_gradient(x.float(), outer.float(), steps, symmetric, None)
    torch.testing.assert_close(
        gradient.float(), expected, rtol=1e-2 if dtype is torch.bfloat16 else 1e-4, atol=1e-4
    )
    x[0, 0], x[1, -1] = math.nan, math.inf
    kernel.rounded(x, steps, symmetric, found)
    assert not found[0, 0].isfinite() and not found[1, -1].isfinite() and found[2:].isfinite().all()


CHECKS = [
    (width, dtype, symmetric)
    for width in (1, 64, 100, 1500)
    for dtype in (torch.float32, torch.bfloat16)
    for symmetric in (False, True)
]


@pytest.mark.parametrize(("width", "dtype", "symmetric"), CHECKS)
def test_a_gpu_rounds_alike(width, dtype, symmetric):
    if not torch.cuda.is_available() or triton_import_module("methods.kernels.gpu.token_rounding") is None:
        pytest.skip("needs a GPU")
    check_kernel(triton_import_module("methods.kernels.gpu.token_rounding"), "cuda", width, dtype, symmetric)
    x = normal(3, width, dtype=torch.float32).to(dtype)
    assert torch.equal(token_format(4, symmetric).round(x.cuda()).cpu(), token_format(4, symmetric).round(x))
