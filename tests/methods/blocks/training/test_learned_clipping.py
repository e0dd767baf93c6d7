"""Learnable weight clipping: the grid's own values forward, straight-through gradients back."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from methods.blocks.training.learned_clipping import fake_quantize, learned_ranges
from methods.contracts.problem import LayerProblem
from methods.contracts.scheme import Scheme, ZeroPoint
from methods.kernels import fake_quant
from methods.kernels.triton_modules import triton_import_module
from methods.solving.ranges import find_grid, fit_grid, make_grid
from tests.helpers.problems import scheme

PASSES = ("forward", "backward", "add_at_extremes")
FLOAT = {"zero_point": ZeroPoint.float}
SCHEMES = {
    "3 bits": scheme(bits=3),
    "2 bits": scheme(bits=2, group_size=8),
    "8 bits": scheme(bits=8, group_size=16),
    "symmetric": scheme(bits=3, group_size=8, symmetric=True),
    "float": scheme(bits=3, group_size=8, **FLOAT),
    "levels": scheme(bits=3, group_size=8, scale_bits=3, scale_group_size=4),
    "float levels": scheme(bits=2, group_size=8, scale_bits=4, scale_group_size=16, **FLOAT),
    "symmetric levels": scheme(bits=2, group_size=8, symmetric=True, scale_bits=3),
}
every_scheme = pytest.mark.parametrize("of", SCHEMES.values(), ids=SCHEMES)


def operands(of: Scheme, dtype=torch.float64, rows=13, columns=48, seed=0) -> list[Tensor]:
    """A weight with groups on one side of 0 and groups around it, and clips that leave weights beyond the
    ends.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = 0.05 * torch.randn(rows, columns, generator=generator, dtype=torch.float64) ** 3
    weight[0], weight[1] = weight[0].abs() + 0.01, -weight[1].abs() - 0.02
    clips = (
        0.4
        + 0.6
        * torch.rand(rows, columns // (of.group_size or columns), generator=generator, dtype=torch.float64)
        for _ in range(2)
    )
    return [tensor.to(dtype) for tensor in (weight, *clips)]


def straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    return value + (rounded - value).detach()


def naive(weight: Tensor, clip_low: Tensor, clip_high: Tensor, of: Scheme) -> Tensor:
    """Straight from the definition, by autograd; what is stored comes from the grid, its gradients from the
    formulas.
    """
    groups = weight.reshape(len(weight), clip_low.shape[1], -1)
    least, greatest = groups.amin(2), groups.amax(2)
    if of.symmetric:
        greatest = torch.maximum(-least, greatest)
        least = -greatest
    elif of.zero_point is ZeroPoint.integer or of.scale_bits is not None:
        least, greatest = least.clamp(max=0), greatest.clamp(min=0)
    low, high = clip_low * least, clip_high * greatest
    grid = make_grid(low.detach(), high.detach(), of, weight.shape[1])
    scale = straight_through((high - low) / of.max_code, grid.scale)
    if of.symmetric:
        zero = grid.zero
    elif of.scale_bits is not None:
        zero = straight_through((-low / scale).clamp(0, of.max_code), grid.zero)
    elif of.zero_point is ZeroPoint.float:
        zero = -straight_through(low, grid.offset) / scale
    else:
        zero = -low / scale
        zero = straight_through(zero, zero.round()).clamp(0, of.max_code)
    steps = groups / scale[..., None] + zero[..., None]
    codes = straight_through(steps, steps.round()).clamp(0, of.max_code)
    return ((codes - zero[..., None]) * scale[..., None]).reshape(weight.shape)


def gradients(rounding, tensors: list[Tensor], of: Scheme, upstream: Tensor) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    return torch.autograd.grad(rounding(*leaves, of), leaves, upstream.to(leaves[0].dtype))


def upstream_of(weight: Tensor) -> Tensor:
    return torch.randn(weight.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


@every_scheme
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_are_the_grids_bit_for_bit(of, dtype):
    weight, *clips = operands(of, dtype)
    ranges = learned_ranges(weight, *clips, of)
    expected = make_grid(ranges.low, ranges.high, of, weight.shape[1]).round(weight)
    assert torch.equal(fake_quantize(weight, *clips, of), expected)
    problem = LayerProblem(weight, torch.eye(weight.shape[1], dtype=dtype), of, ranges)
    assert torch.equal(find_grid(problem).round(weight), expected)
    assert not torch.equal(expected, weight) and expected.unique().numel() > 20


@every_scheme
def test_without_clipping_it_is_the_min_max_grid(of):
    weight, *clips = operands(of, torch.float32)
    rounded = fake_quantize(weight, *(torch.ones_like(clip) for clip in clips), of)
    assert torch.equal(rounded, fit_grid(weight, of).round(weight))


@every_scheme
def test_gradients_are_those_of_the_definition(of):
    tensors = operands(of)
    upstream = upstream_of(tensors[0])
    for found, expected in zip(
        gradients(fake_quantize, tensors, of, upstream), gradients(naive, tensors, of, upstream), strict=True
    ):
        assert expected.abs().max() > 0.01
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@every_scheme
def test_float32_gradients(of):
    tensors = operands(of, torch.float32)
    upstream = upstream_of(tensors[0])
    in_double = gradients(naive, tensors, of, upstream)  # the same codes: float32 all the way, by autograd
    for found, expected in zip(gradients(fake_quantize, tensors, of, upstream), in_double, strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-5)


@every_scheme
def test_plain_torch_does_what_the_compiled_kernel_does(of, monkeypatch):
    tensors = operands(of)
    upstream = upstream_of(tensors[0])
    compiled, rounded = gradients(fake_quantize, tensors, of, upstream), fake_quantize(*tensors, of)
    monkeypatch.setattr(fake_quant, "_compiled", lambda name, groups: None)
    assert torch.equal(fake_quantize(*tensors, of), rounded)
    for found, expected in zip(gradients(fake_quantize, tensors, of, upstream), compiled, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_ends_that_several_weights_share():
    """Equal extremes take equal parts, as in the definition; a symmetric range hangs on the larger side, on
    both where they are equal.
    """
    weight = torch.tensor(
        [[-1.0, -1, 0.3, 0.7, 0.7, 0.7, 0.1, 0.2], [-1, 0.5, 0.2, 1, -0.2, 0.6, 1, 0.4]], dtype=torch.float64
    )
    clips = [torch.full((2, 1), 0.8, dtype=torch.float64), torch.full((2, 1), 0.9, dtype=torch.float64)]
    for of in (scheme(bits=2), scheme(bits=2, symmetric=True), scheme(bits=2, **FLOAT)):
        upstream = upstream_of(weight)
        found, expected = (
            gradients(rounding, [weight, *clips], of, upstream) for rounding in (fake_quantize, naive)
        )
        for left, right in zip(found, expected, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "of",
    [
        scheme(bits=3, group_size=4),
        scheme(bits=3, group_size=4, **FLOAT),
        scheme(bits=3, group_size=4, scale_bits=3),
    ],
)
def test_groups_without_a_range(of):
    """All zeros, or one value throughout."""
    weight = torch.zeros(3, 8)
    weight[1, :4], weight[2, 4:] = 0.3, torch.tensor([0.1, -0.2, 0.3, 0.4])
    clips = [torch.full((3, 2), 0.9), torch.full((3, 2), 0.9)]
    found = gradients(fake_quantize, [weight, *clips], of, torch.ones(3, 8))
    assert all(gradient.isfinite().all() for gradient in found)
    assert torch.equal(found[0][0], torch.ones(8)) and not found[1][0].any() and not found[2][0].any()


def test_what_is_not_finite_shows():
    weight, *clips = operands(SCHEMES["2 bits"], torch.float32)
    for value in (float("nan"), float("inf")):
        weight[3, 5] = value
        rounded = fake_quantize(weight, *clips, SCHEMES["2 bits"])
        assert not rounded[3, 5].isfinite() and rounded[3, 8:].isfinite().all()


def test_threads_change_nothing():
    of = scheme(bits=3, group_size=16)
    tensors = operands(of, torch.float32, rows=900)
    before, upstream, found = torch.get_num_threads(), upstream_of(tensors[0]), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append([fake_quantize(*tensors, of), *gradients(fake_quantize, tensors, of, upstream)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(left, right) for left, right in zip(*found, strict=True))


def test_little_is_kept_for_the_way_back():
    of, kept = scheme(bits=3, group_size=16), {}
    leaves = [tensor.requires_grad_() for tensor in operands(of)]
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.setdefault(tensor.data_ptr(), tensor.detach()), lambda tensor: tensor
    ):
        fake_quantize(*leaves, of)
    extra = [tensor for pointer, tensor in kept.items() if pointer != leaves[0].data_ptr()]
    assert leaves[0].data_ptr() in kept and sum(tensor.numel() for tensor in extra) == 6 * leaves[1].numel()


def test_weights_that_are_not_contiguous_and_not_trained():
    of = SCHEMES["3 bits"]
    weight, *clips = operands(of)
    expected = gradients(naive, [weight, *clips], of, upstream_of(weight))
    leaves = [clip.clone().requires_grad_() for clip in clips]
    rounded = fake_quantize(weight.T.contiguous().T, *leaves, of)
    found = torch.autograd.grad(rounded, leaves, upstream_of(weight).T.contiguous().T)
    for left, right in zip(found, expected[1:], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("fields", [{}, {"symmetric": True}, FLOAT], ids=str)
def test_trained_clips_round_with_less_error(fields):
    of = scheme(bits=2, group_size=128, **fields)
    weight = torch.randn(32, 256, generator=torch.Generator().manual_seed(0))
    leaves, errors = [torch.full((32, 2), 4.0, requires_grad=True) for _ in range(2)], []
    optimizer = torch.optim.Adam(leaves, lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        error = (fake_quantize(weight, *(leaf.sigmoid() for leaf in leaves), of) - weight).square().mean()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert max(errors[-10:]) < 0.6 * errors[0]


KERNEL_SHAPES = [(3, 2, 5), (1, 1, 1), (5, 7, 32), (2, 1, 1500)]  # rows, groups, weights of a group


def check_kernels(kernels, shape: tuple[int, int, int], dtype: torch.dtype, device: str = "cpu") -> None:
    """Compiled passes against plain torch: weights within and beyond the ends, half-way between codes, and
    equal to each other.
    """
    generator = torch.Generator().manual_seed(shape[2])
    groups, grad = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    scale = 0.2 + torch.rand(shape[:2], generator=generator, dtype=torch.float64).to(dtype)
    zero = torch.randint(8, shape[:2], generator=generator).to(dtype)
    groups[0] = (torch.randint(-2, 9, shape[1:], generator=generator) + 0.5 - zero[0, :, None]) * 0.25
    scale[0] = 0.25
    groups, grad, scale, zero = (tensor.to(device) for tensor in (groups, grad, scale, zero))
    rounded, results = (
        torch.empty_like(groups),
        [torch.empty_like(groups), torch.empty_like(scale), torch.empty_like(scale)],
    )
    kernels.forward(groups, scale, zero, 7, rounded)
    assert torch.equal(rounded, fake_quant.forward_reference(groups, scale, zero, 7))
    kernels.backward(grad, groups, scale, zero, 7, *results)
    ends = torch.aminmax(groups, dim=2)
    totals = [results[0].clone() for _ in range(2)]
    kernels.add_at_extremes(totals[0], groups, *ends, scale, zero)
    fake_quant.add_at_extremes_reference_(totals[1], groups, *ends, scale, zero)
    expected, slack = (
        fake_quant.backward_reference(grad, groups, scale, zero, 7),
        1e-4 if dtype == torch.float32 else 1e-12,
    )
    for left, right in zip((*results, totals[0]), (*expected, totals[1]), strict=True):
        torch.testing.assert_close(left, right, rtol=slack, atol=slack)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", KERNEL_SHAPES, ids=str)
def test_cpu_kernels(shape, dtype):
    check_kernels(
        SimpleNamespace(**{name: fake_quant._compiled(name, torch.ones(1)) for name in PASSES}), shape, dtype
    )


@pytest.mark.parametrize("shape", KERNEL_SHAPES, ids=str)
def test_gpu_kernels(shape):
    if not torch.cuda.is_available() or triton_import_module("methods.kernels.gpu.fake_quant") is None:
        pytest.skip("needs a GPU and triton")
    check_kernels(triton_import_module("methods.kernels.gpu.fake_quant"), shape, torch.float32, "cuda")
