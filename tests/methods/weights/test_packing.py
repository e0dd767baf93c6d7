"""Codes survive packing, whatever their width and number."""

import pytest
import torch

from methods.weights.packing import pack, pack_reference, unpack, unpack_reference

WIDTHS = range(1, 25)
COUNTS = [1, 7, 8, 9, 63, 257]


def some_codes(bits: int, numel: int) -> torch.Tensor:
    codes = torch.randint(2**bits, (numel,), generator=torch.Generator().manual_seed(numel))
    codes[-1] = 2**bits - 1
    return codes.to(torch.uint8 if bits <= 8 else torch.int32)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("numel", COUNTS)
def test_round_trip(bits, numel):
    codes = some_codes(bits, numel)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.numel() == (numel if bits == 8 else -(-numel // 8) * bits)
    again = unpack(packed, bits, numel)
    assert again.dtype == codes.dtype and torch.equal(again, codes)
    if bits != 8:
        assert torch.equal(pack_reference(codes, bits), packed) and torch.equal(
            unpack_reference(packed, bits, numel), codes
        )


@pytest.mark.parametrize("bits", [1, 3, 12, 23])
def test_stream_is_little_endian(bits):
    codes = some_codes(bits, 16)
    stream = sum(int(code) << (bits * k) for k, code in enumerate(codes))
    assert bytes(pack(codes, bits).tolist()) == stream.to_bytes(2 * bits, "little")


def test_no_codes_need_no_bytes():
    assert pack(torch.zeros(0, dtype=torch.int32), 12).numel() == 0
    assert unpack(torch.zeros(0, dtype=torch.uint8), 12, 0).numel() == 0


def test_short_stream_is_refused():
    with pytest.raises(ValueError, match="need 6 bytes, got 3"):
        unpack(torch.zeros(3, dtype=torch.uint8), 3, 16)


@pytest.mark.parametrize("bits", [0, 25])
def test_widths_without_a_stream_are_refused(bits):
    with pytest.raises(ValueError, match=f"codes of {bits} bits"):
        pack(torch.zeros(8, dtype=torch.int32), bits)
