"""Scales that are codes: fitting, storage, bits by hand, and what the search over pairs of codes is worth."""

from dataclasses import replace

import pytest
import torch

from methods.contracts.scheme import RangeRule, ZeroPoint
from methods.kernels.range_search import best_shrink
from methods.solving.ranges import find_grid, fit_grid
from methods.weights.bits_per_weight import bits_per_weight
from methods.weights.grid import Grid
from methods.weights.levels import at_least, fit_levels, storable
from methods.weights.stored import UniformWeight
from tests.helpers.problems import layer_problem, scheme

FORMS = [
    dict(bits=3, group_size=16, scale_bits=3),
    dict(bits=3, group_size=16, scale_bits=3, zero_point=ZeroPoint.float),
    dict(bits=2, group_size=8, scale_bits=4, zero_point=ZeroPoint.float, range=RangeRule.search),
    dict(bits=4, group_size=16, scale_bits=6, range=RangeRule.search_hessian),
    dict(bits=3, scale_bits=3, symmetric=True, range=RangeRule.search),
]


def test_values_are_rounded_to_the_nearest_of_their_rows_levels():
    values = torch.rand(37, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    levels = fit_levels(values, 3, 16)
    assert levels.step.shape == (3, 5)
    span = torch.stack([part.amax(0) - part.amin(0) for part in values.split(16)])
    assert ((levels.decode() - values).abs() <= (span / 14 * 1.01 + 1e-3).repeat_interleave(16, 0)[:37]).all()
    assert torch.equal(
        levels.choices().gather(-1, levels.codes.long()[..., None]).squeeze(-1), levels.decode()
    )


def test_near_codes_hold_the_present_one():
    for bits in (2, 3, 5):
        levels = fit_levels(torch.rand(20, 4, generator=torch.Generator().manual_seed(0)), bits, 8)
        codes, values = levels.nearby()
        assert (codes == levels.codes[..., None]).any(-1).all() and codes.shape[-1] == min(2**bits, 8)
        assert codes.max() < 2**bits and torch.equal(values, levels.choices().gather(-1, codes.long()))


def test_a_scale_far_below_its_neighbours_stays_above_zero():
    tiny = torch.tensor([[1e-9], [1.0], [0.0]])
    assert torch.equal(at_least(0.001, tiny, 16), torch.tensor([[0.001], [1.0], [0.001]]))
    assert torch.equal(at_least(0.001, torch.zeros(3, 1), 16), torch.ones(3, 1))
    for size in (1e-12, 1e-3, 1e6):
        weight = (
            torch.randn(32, 16, generator=torch.Generator().manual_seed(1))
            * torch.logspace(-8, 0, 32)[:, None]
            * size
        )
        grid = fit_grid(weight, scheme(group_size=8, scale_bits=3))
        assert (grid.scale > 0).all() and torch.isfinite(grid.round(weight)).all()


def test_storable_moves_nothing_further_than_asked():
    values = torch.tensor([1.0001, 1e-9])
    assert torch.equal(storable(values), values)  # the small one would become 0
    assert torch.equal(storable(values, within=torch.tensor(1e-2)), values.half().float())
    assert torch.equal(storable(torch.tensor([1e6]), within=torch.tensor(1.0)), torch.tensor([1e6]))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_storage_round_trip(form):
    problem = layer_problem(rows=37, **form)
    grid = find_grid(problem)
    codes = grid.encode(problem.weight)
    restored = Grid.restore(grid.tensors(), grid.layout(), *problem.weight.shape)
    assert torch.equal(restored.decode(codes), grid.decode(codes))
    assert torch.equal(restored.tensors()["scale_codes"], grid.tensors()["scale_codes"])


def test_bits_by_hand():
    problem = layer_problem(rows=64, columns=64, group_size=16, scale_bits=3, zero_point=ZeroPoint.float)
    grid = find_grid(problem)
    weight = UniformWeight(grid.encode(problem.weight), grid)
    # 3-bit codes; per 16 weights a scale and a zero of 3 bits; per 16 x 16 weights a float16 step and offset
    # for each of the two
    assert bits_per_weight(weight.tensors(), 64 * 64) == 3 + 6 / 16 + 4 * 16 / 256
    integer = find_grid(replace(problem, scheme=replace(problem.scheme, zero_point=ZeroPoint.integer)))
    weight = UniformWeight(integer.encode(problem.weight), integer)
    assert bits_per_weight(weight.tensors(), 64 * 64) == 3 + 6 / 16 + 2 * 16 / 256


def test_the_search_takes_the_best_pair_of_codes():
    problem = layer_problem(
        rows=20, bits=3, group_size=16, scale_bits=3, zero_point=ZeroPoint.float, range=RangeRule.search
    )
    grid = find_grid(problem)
    grouped = problem.weight.view(20, 4, 16)
    scales, zeros = grid.scale_levels.choices(), grid.zero_levels.choices()
    pairs = [(scales[..., i], zeros[..., j]) for i in range(8) for j in range(8)]
    every_scale, every_zero = (torch.stack([pair[k] for pair in pairs], -1) for k in (0, 1))
    best = best_shrink(grouped, every_scale, every_zero, None, 7)[..., None]
    assert torch.equal(every_scale.gather(-1, best).squeeze(-1), grid.scale)
    assert torch.equal(every_zero.gather(-1, best).squeeze(-1), grid.zero)


def test_coarser_scales_cost_little():
    form = dict(
        rows=64, columns=64, bits=3, group_size=16, range=RangeRule.search, zero_point=ZeroPoint.float
    )
    errors = []
    for scale_bits in (None, 3):
        problem = layer_problem(**form, scale_bits=scale_bits)
        errors.append((find_grid(problem).round(problem.weight) - problem.weight).pow(2).sum())
    assert errors[1] < 1.15 * errors[0]
