"""Run by test_kernels in a process of its own, because Triton reads TRITON_INTERPRET when it is imported."""

import torch

from methods.kernels.feedback_triton import round_block
from tests.test_kernels import SHAPES, both


def through_triton(weight, pull, offset, steps, feedback, grid):
    if grid is None:
        return round_block(weight, pull, offset, steps, feedback, weight, weight, torch.zeros(len(weight), dtype=torch.int64), 0, False)
    levels = grid.scale.T.contiguous(), grid.zero.T.contiguous(), grid.group_index
    return round_block(weight, pull, offset, steps, feedback, *levels, grid.max_code, True)


for shape in SHAPES:
    for dtype, slack in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        for rounds in (True, False):
            expected, found = both(through_triton, *shape, dtype, rounds)
            assert found[0] == expected[0], (shape, dtype, rounds)
            for left, right in zip(found[1:], expected[1:], strict=True):
                torch.testing.assert_close(left, right, rtol=0, atol=slack)
