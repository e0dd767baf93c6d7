"""Run by test_kernels in a process of its own, because Triton reads TRITON_INTERPRET when it is imported."""

import torch

from methods.kernels.gpu import fake_quant, nearest, token_rounding, vector_feedback
from methods.kernels.gpu.feedback import round_block
from methods.kernels.nearest import reference
from methods.weights import packing_triton
from methods.weights.packing import pack_reference
from tests.methods.blocks.test_activations import CHECKS, check_kernel
from tests.methods.blocks.training.test_learned_clipping import KERNEL_SHAPES, check_kernels
from tests.methods.kernels.test_kernels import SHAPES, both
from tests.methods.kernels.test_vector_kernels import PASSES, SEARCHES, check_pass, search_operands
from tests.methods.weights.test_packing import COUNTS, WIDTHS, some_codes


def through_triton(weight, pull, offset, steps, feedback, grid, limits=None):
    limits = torch.full_like(weight[:, 0], torch.inf) if limits is None else limits
    if grid is None:
        none = torch.zeros(len(weight), dtype=torch.int64)
        return round_block(weight, pull, offset, steps, feedback, weight, weight, none, limits, 0, False)
    levels = grid.scale.T.contiguous(), grid.zero.T.contiguous(), grid.group_index
    return round_block(weight, pull, offset, steps, feedback, *levels, limits, grid.max_code, True)


def check_feedback():
    for shape in SHAPES:
        for dtype, slack in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
            for rounds in (True, False):
                expected, found = both(through_triton, *shape, dtype, rounds)
                assert found[0] == expected[0], (shape, dtype, rounds)
                for left, right in zip(found[1:], expected[1:], strict=True):
                    torch.testing.assert_close(left, right, rtol=0, atol=slack)


def check_packing():
    for bits in WIDTHS:
        for numel in COUNTS:
            codes = some_codes(bits, numel)
            expected = pack_reference(codes, bits)
            packed, again = torch.full_like(expected, 77), torch.full_like(codes, 77)
            packing_triton.pack(codes, bits, packed)
            assert torch.equal(packed, expected), (bits, numel)
            packing_triton.unpack(packed, bits, again)
            assert torch.equal(again, codes), (bits, numel)


def check_nearest():
    for shape in SEARCHES:
        vectors, codebook = search_operands(*shape, torch.float32)
        for exact in (True, False):
            assert torch.equal(nearest.nearest(vectors, codebook, exact), reference(vectors, codebook)), shape


def check_vector_feedback():
    for columns, rows, *rest in PASSES:
        shape = columns, min(rows, 60), *rest  # enough for several programs; more is for the threads of a CPU
        for held in (False, True):
            for dtype in (torch.float32, torch.float64):
                check_pass(vector_feedback.round_vectors, shape, dtype, held, 3)


def check_fake_quant():
    for shape in KERNEL_SHAPES:
        for dtype in (torch.float32, torch.float64):
            check_kernels(fake_quant, shape, dtype)


def check_token_rounding():
    for check in CHECKS:
        check_kernel(token_rounding, "cpu", *check)


check_feedback()
check_packing()
check_nearest()
check_vector_feedback()
check_fake_quant()
check_token_rounding()
