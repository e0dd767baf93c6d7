"""Bit packing for CUDA devices: every output byte, and every output code, is gathered on its own from what it
shares bits with.
"""

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024  # outputs of one program


def pack(codes: Tensor, bits: int, packed: Tensor) -> None:
    """Fill `packed`."""
    if packed.numel():
        grid = (triton.cdiv(packed.numel(), BLOCK),)
        _pack[grid](codes, packed, codes.numel(), packed.numel(), BITS=bits, MEETS=7 // bits + 2, BLOCK=BLOCK)


def unpack(packed: Tensor, bits: int, codes: Tensor) -> None:
    """Fill `codes`."""
    if codes.numel():
        grid = (triton.cdiv(codes.numel(), BLOCK),)
        _unpack[grid](
            packed, codes, packed.numel(), codes.numel(), BITS=bits, MEETS=(bits + 6) // 8 + 1, BLOCK=BLOCK
        )


@triton.jit
def _pack(
    codes, packed, code_count, byte_count, BITS: tl.constexpr, MEETS: tl.constexpr, BLOCK: tl.constexpr
):
    byte = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    first = byte * 8 // BITS  # the code that holds the lowest bit of the byte
    value = tl.zeros((BLOCK,), tl.int32)
    for k in tl.static_range(MEETS):
        at = first + k
        left = (at * BITS - byte * 8).to(tl.int32)
        code = tl.load(codes + at, mask=(at < code_count) & (left < 8), other=0).to(tl.int32)
        value |= (code << tl.maximum(left, 0)) >> tl.maximum(-left, 0)
    tl.store(packed + byte, (value & 255).to(tl.uint8), mask=byte < byte_count)


@triton.jit
def _unpack(
    packed, codes, byte_count, code_count, BITS: tl.constexpr, MEETS: tl.constexpr, BLOCK: tl.constexpr
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    first = at * BITS // 8  # the byte that holds the lowest bit of the code
    value = tl.zeros((BLOCK,), tl.int32)
    for k in tl.static_range(MEETS):
        byte = first + k
        left = (byte * 8 - at * BITS).to(tl.int32)
        part = tl.load(packed + byte, mask=(byte < byte_count) & (left < BITS), other=0).to(tl.int32)
        value |= (part << tl.maximum(left, 0)) >> tl.maximum(-left, 0)
    tl.store(codes + at, (value & ((1 << BITS) - 1)).to(codes.dtype.element_ty), mask=at < code_count)
