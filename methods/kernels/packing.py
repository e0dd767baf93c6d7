"""Codes of 1 to 8 bits as a dense stream of bytes.

The stream is little-endian: code k takes bits [b*k, b*k + b), counted from the lowest bit of the first byte. Eight codes of b bits
fill exactly b bytes, and the last eight are padded with zero codes.
"""

import torch
from torch import Tensor

from methods.kernels import packing_numba


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack integer codes of any shape, each below 2^bits, into ceil(numel / 8) * bits bytes (1-D uint8)."""
    flat = codes.reshape(-1).to(torch.uint8)
    if bits == 8:
        return flat
    if flat.device.type != "cpu":
        return pack_reference(flat, bits)
    packed = torch.zeros(-(-flat.numel() // 8) * bits, dtype=torch.uint8)
    packing_numba.pack(flat.numpy(), bits, packed.numpy())
    return packed


def unpack(packed: Tensor, bits: int, numel: int) -> Tensor:
    """The first `numel` codes of a packed stream, (numel,) uint8.

    Raises:
        ValueError: the stream is too short for `numel` codes.
    """
    needed = numel if bits == 8 else -(-numel // 8) * bits
    if packed.numel() < needed:
        raise ValueError(f"{numel} codes of {bits} bits need {needed} bytes, got {packed.numel()}")
    if bits == 8:
        return packed[:numel]
    if packed.device.type != "cpu":
        return unpack_reference(packed, bits, numel)
    codes = torch.empty(numel, dtype=torch.uint8)
    packing_numba.unpack(packed.contiguous().numpy(), bits, codes.numpy())
    return codes


def pack_reference(codes: Tensor, bits: int) -> Tensor:
    """The same in plain torch, for any device: eight codes at a time in one 64-bit word, of which the low bytes are kept."""
    eights = torch.nn.functional.pad(codes, (0, -codes.numel() % 8)).view(-1, 8)
    word = torch.zeros(eights.shape[0], dtype=torch.int64, device=codes.device)
    for k in range(8):
        word |= eights[:, k].to(torch.int64) << (bits * k)
    return torch.stack([(word >> (8 * k)) & 255 for k in range(bits)], dim=1).to(torch.uint8).reshape(-1)


def unpack_reference(packed: Tensor, bits: int, numel: int) -> Tensor:
    """The inverse of `pack_reference`."""
    columns = packed[: -(-numel // 8) * bits].view(-1, bits).to(torch.int64)
    word = torch.zeros(len(columns), dtype=torch.int64, device=packed.device)
    for k in range(bits):
        word |= columns[:, k] << (8 * k)
    codes = torch.stack([(word >> (bits * k)) & (2**bits - 1) for k in range(8)], dim=1)
    return codes.to(torch.uint8).reshape(-1)[:numel]
