"""Bit packing for CPUs: one pass over the codes, a byte written whenever eight bits have gathered."""

from numba import int32, int64, njit, uint8
from torch import Tensor

OPTIONS = {"nogil": True, "cache": True}


def pack(codes: Tensor, bits: int, packed: Tensor) -> None:
    """Fill `packed`, which starts as zeros."""
    _pack(codes.numpy(), bits, packed.numpy())


def unpack(packed: Tensor, bits: int, codes: Tensor) -> None:
    """Fill `codes`."""
    _unpack(packed.numpy(), bits, codes.numpy())


@njit([(codes[::1], int64, uint8[::1]) for codes in (uint8, int32)], **OPTIONS)
def _pack(codes, bits, packed):
    gathered, held, at = 0, 0, 0
    for code in codes:
        gathered |= int64(code) << held
        held += bits
        while held >= 8:
            packed[at] = gathered & 255
            gathered >>= 8
            held -= 8
            at += 1
    if held > 0:
        packed[at] = gathered & 255


@njit([(uint8[::1], int64, codes[::1]) for codes in (uint8, int32)], **OPTIONS)
def _unpack(packed, bits, codes):
    gathered, held, at = 0, 0, 0
    mask = (1 << bits) - 1
    for k in range(len(codes)):
        while held < bits:
            gathered |= int64(packed[at]) << held
            held += 8
            at += 1
        codes[k] = gathered & mask
        gathered >>= bits
        held -= bits
