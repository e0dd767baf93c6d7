"""Codes of 1 to 8 bits as a dense stream of bytes.

Eight codes of b bits fill exactly b bytes: code k of the eight sits at bits [b*k, b*k + b) of a little-endian
word, and the word's low b bytes are stored. The last word is padded with zero codes.
"""

import torch
from torch import Tensor


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack integer codes of any shape, each below 2^bits, into ceil(numel / 8) * bits bytes (1-D uint8)."""
    if bits == 8:
        return codes.reshape(-1).to(torch.uint8)
    flat = codes.reshape(-1).to(torch.uint8)
    words = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    word = torch.zeros(words.shape[0], dtype=torch.int64, device=codes.device)
    for k in range(8):
        word |= words[:, k].to(torch.int64) << (bits * k)
    return torch.stack([(word >> (8 * k)) & 255 for k in range(bits)], dim=1).to(torch.uint8).reshape(-1)


def unpack(packed: Tensor, bits: int, numel: int) -> Tensor:
    """The first `numel` codes of a packed stream, (numel,) uint8.

    Raises:
        ValueError: the stream is too short for `numel` codes.
    """
    words = -(-numel // 8)
    needed = numel if bits == 8 else words * bits
    if packed.numel() < needed:
        raise ValueError(f"{numel} codes of {bits} bits need {needed} bytes, got {packed.numel()}")
    if bits == 8:
        return packed[:numel]
    columns = packed[:needed].view(words, bits).to(torch.int64)
    word = torch.zeros(words, dtype=torch.int64, device=packed.device)
    for k in range(bits):
        word |= columns[:, k] << (8 * k)
    codes = torch.stack([(word >> (bits * k)) & (2**bits - 1) for k in range(8)], dim=1)
    return codes.to(torch.uint8).reshape(-1)[:numel]
