"""Every compiled kernel against its torch reference, at shapes that are no multiple of anything."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from methods.contracts.scheme import RangeRule
from methods.kernels import feedback, range_search
from methods.kernels.threads import over_rows, row_slices
from methods.solving.descent import Descent, Feedback
from methods.solving.ranges import fit_grid
from tests.helpers.problems import scheme

SHAPES = [(1, 1, None), (5, 3, None), (32, 33, 8), (70, 45, 10)]  # columns, rows, group size


def operands(columns: int, rows: int, group_size: int | None, dtype: torch.dtype) -> list:
    generator = torch.Generator().manual_seed(columns)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    weight = normal(columns, rows)
    grid = fit_grid(weight.T.contiguous(), scheme(bits=3, group_size=group_size))
    offset = (grid.round(weight.T).T - weight).contiguous()
    return [
        weight,
        0.1 * normal(columns, rows),
        offset,
        torch.empty_like(weight),
        0.1 * normal(columns, columns + 3)[:, :columns],
        grid,
    ]


def both(kernel, columns, rows, group_size, dtype, rounds, limited=False):
    limits = torch.linspace(0, 0.3, columns, dtype=dtype) if limited else None
    found = []
    for run in (feedback.reference, kernel):
        *tensors, grid = operands(columns, rows, group_size, dtype)
        moved = int(run(*tensors, grid if rounds else None, limits))
        found.append((moved, tensors[2], tensors[3]))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rounds, limited", [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cpu_feedback(shape, rounds, limited, dtype):
    expected, found = both(feedback.round_block, *shape, dtype, rounds, limited)
    assert found[0] == expected[0]
    for left, right in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12)


def test_cpu_feedback_rounds_as_the_grid_does():
    weight, _, _, steps, factors, grid = operands(24, 300, 8, torch.float32)
    # half-way between codes, and beyond the ends
    ties = torch.randint(-1, 9, (300, 24), generator=torch.Generator().manual_seed(0)) + 0.5
    scale, zero = grid.scale[:, grid.group_index], grid.zero[:, grid.group_index]
    ties = ((ties - zero) * scale).T.contiguous()
    offset = torch.zeros_like(weight)
    feedback.round_block(ties, torch.zeros_like(ties), offset, steps, torch.zeros_like(factors), grid)
    assert torch.equal(ties + offset, ties + (grid.round(ties.T).T - ties))


def test_triton_feedback_in_its_interpreter():
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    script = Path(__file__).parents[2] / "helpers" / "triton_in_interpreter.py"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(script.parents[2])}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_pushed_steps_are_the_product():
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(6, 11, generator=generator) * (torch.rand(6, 11, generator=generator) < 0.3)
    factors, pushed = torch.randn(6, 20, generator=generator), torch.zeros(11, 20)
    feedback.push_steps(pushed, steps, factors)
    torch.testing.assert_close(pushed, steps.T @ factors)
    pull, expected = torch.ones(20, 11), 1 + pushed.T.clone()
    feedback.take_pushed(pull, pushed)
    torch.testing.assert_close(pull, expected)
    assert not pushed.any()


def test_descent_keeps_its_pull_exact(monkeypatch):
    """Products and pushed steps mix as they come: the pull a block sees is always feedback @ offset."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(9, 50, generator=generator, dtype=torch.float64)
    factors = (0.05 * torch.randn(50, 50, generator=generator, dtype=torch.float64)).fill_diagonal_(0)
    grid = fit_grid(weight, scheme(bits=3))
    descent = Descent(weight, grid.round(weight), Feedback(factors), grid, 7)
    refresh, modes = descent._refresh, set()

    def checked(index: int, block: slice) -> None:
        refresh(index, block)
        modes.add((any(descent.pending), all(descent.pending)))
        torch.testing.assert_close(descent.pull[block], factors[block] @ descent.offset, rtol=0, atol=1e-10)

    monkeypatch.setattr(descent, "_refresh", checked)
    for rounded in (True, False, True, True, True, True):
        descent.sweep(rounded)
    assert modes == {(False, False), (True, False), (True, True)}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(7, 1, 33), (5, 4, 16), (3, 2, 1)])
def test_range_search(shape, weighted):
    generator = torch.Generator().manual_seed(0)
    grouped = torch.randn(*shape, generator=generator, dtype=torch.float64)
    scales = 0.05 + torch.rand(*shape[:2], 21, generator=generator, dtype=torch.float64)
    zeros = torch.randint(8, scales.shape, generator=generator).double()
    importance = torch.rand(shape[1:], generator=generator, dtype=torch.float64) if weighted else None
    arguments = (grouped, scales, zeros, importance, 7)
    assert torch.equal(range_search.best_shrink(*arguments), range_search.reference(*arguments))


def test_first_of_equal_candidates_wins():
    grouped = torch.randn(4, 1, 8, generator=torch.Generator().manual_seed(0))
    same = torch.ones(4, 1, 5)
    for search in (range_search.best_shrink, range_search.reference):
        assert not search(grouped, same, 3 * same, None, 7).any()


@pytest.mark.parametrize("rows", [1, 2, 3, 192, 767, 769, 5000])
def test_row_slices_cover_all_rows_once(rows):
    covered = [row for part in row_slices(rows) for row in range(part.start, part.stop)]
    assert covered == list(range(rows))


def test_threads_restore_the_setting_and_the_order():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert over_rows(lambda rows: (rows.start, torch.get_num_threads()), 4, torch.device("cpu")) == [
            (0, 1),
            (2, 1),
        ]
        assert torch.get_num_threads() == 2
        with torch.inference_mode():
            assert all(over_rows(lambda rows: torch.is_inference_mode_enabled(), 4, torch.device("cpu")))
    finally:
        torch.set_num_threads(before)


def test_search_prefers_shrunken_ranges_by_the_documented_cost():
    weight = torch.randn(3, 40, generator=torch.Generator().manual_seed(4), dtype=torch.float64) ** 3
    grid = fit_grid(weight, scheme(bits=3, range=RangeRule.search))
    assert (grid.scale < fit_grid(weight, scheme(bits=3)).scale).all()
