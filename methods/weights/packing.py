"""Codes of 1 to 24 bits as a dense stream of bytes.

The stream is little-endian: code k takes bits [b*k, b*k + b), counted from the lowest bit of the first byte.
Eight codes of b bits fill exactly b bytes, and the last eight are padded with zero codes (but for b = 8,
where the stream is the codes). Codes are uint8 up to 8 bits and int32 above.

Why dense: 3 bits in half bytes would be 4, and the bits that a report counts would not be those of the file.
Why eight codes at a time: it is the least number whose bits end with a byte for every b, so that eights are
alike: code c of an eight meets the same bytes, shifted by the same 8 * byte - b * c, in all of them. The
reference vectorises over eights, the kernels share eights or outputs out, and no two workers write to one
byte. Why little-endian: the bits of a code that spills over go on at the bottom of the next
byte, so that one signed shift per byte serves both of its parts.
"""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from methods.weights import packing_numba

MOST_BITS = 24


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack integer codes of any shape, each below 2^bits, into ceil(numel / 8) * bits bytes (1-D uint8)."""
    flat = codes.reshape(-1).to(code_dtype(bits)).contiguous()
    if bits == 8:
        return flat
    kernel = _kernel(flat.device.type)
    if kernel is None:
        return pack_reference(flat, bits)
    packed = torch.zeros(stream_length(flat.numel(), bits), dtype=torch.uint8, device=flat.device)
    kernel.pack(flat, bits, packed)
    return packed


def unpack(packed: Tensor, bits: int, numel: int) -> Tensor:
    """The first `numel` codes of a packed stream, (numel,) uint8 or int32.

    Raises:
        ValueError: the stream is too short for `numel` codes.
    """
    needed, dtype = stream_length(numel, bits), code_dtype(bits)
    if packed.numel() < needed:
        raise ValueError(f"{numel} codes of {bits} bits need {needed} bytes, got {packed.numel()}")
    if bits == 8:
        return packed[:numel]
    kernel = _kernel(packed.device.type)
    if kernel is None:
        return unpack_reference(packed, bits, numel)
    codes = torch.empty(numel, dtype=dtype, device=packed.device)
    kernel.unpack(packed.contiguous(), bits, codes)
    return codes


def stream_length(numel: int, bits: int) -> int:
    """Bytes that `numel` codes take."""
    return numel if bits == 8 else -(-numel // 8) * bits


def code_dtype(bits: int) -> torch.dtype:
    """What holds codes of so many bits.

    Raises:
        ValueError: no stream has such codes.
    """
    if not 1 <= bits <= MOST_BITS:
        raise ValueError(f"codes of {bits} bits: must be between 1 and {MOST_BITS}")
    return torch.uint8 if bits <= 8 else torch.int32


def pack_reference(codes: Tensor, bits: int) -> Tensor:
    """The same in plain torch, for any device: eight codes at a time, each added to the bytes it reaches
    into.
    """
    eights = torch.nn.functional.pad(codes, (0, -codes.numel() % 8)).view(-1, 8).to(torch.int32)
    packed = torch.zeros(len(eights), bits, dtype=torch.int32, device=codes.device)
    for code, byte in _meetings(bits):
        packed[:, byte] |= _shifted(eights[:, code], bits * code - 8 * byte) & 255
    return packed.to(torch.uint8).reshape(-1)


def unpack_reference(packed: Tensor, bits: int, numel: int) -> Tensor:
    """The inverse of `pack_reference`."""
    bytewise = packed[: -(-numel // 8) * bits].view(-1, bits).to(torch.int32)
    codes = torch.zeros(len(bytewise), 8, dtype=torch.int32, device=packed.device)
    for code, byte in _meetings(bits):
        codes[:, code] |= _shifted(bytewise[:, byte], 8 * byte - bits * code)
    return (codes & (2**bits - 1)).to(code_dtype(bits)).reshape(-1)[:numel]


def _meetings(bits: int) -> list[tuple[int, int]]:
    """(code, byte) of every pair that shares bits, among eight codes and their bytes."""
    return [
        (code, byte)
        for code in range(8)
        for byte in range(bits * code // 8, (bits * (code + 1) - 1) // 8 + 1)
    ]


def _shifted(values: Tensor, left: int) -> Tensor:
    return values << left if left >= 0 else values >> -left


@cache
def _kernel(device_type: str) -> ModuleType | None:
    """The compiled kernel for a device, None where there is none (triton comes with torch on Linux)."""
    if device_type == "cpu":
        return packing_numba
    if device_type == "cuda" and find_spec("triton") is not None:
        return import_module("methods.weights.packing_triton")
    return None
