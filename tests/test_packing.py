"""Codes survive packing, whatever their width and number."""

import pytest
import torch

from methods.kernels.packing import pack, pack_reference, unpack, unpack_reference


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("numel", [1, 7, 8, 9, 63, 257])
def test_round_trip(bits, numel):
    codes = torch.randint(2**bits, (numel,), generator=torch.Generator().manual_seed(numel)).to(torch.uint8)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.numel() == (numel if bits == 8 else -(-numel // 8) * bits)
    assert torch.equal(unpack(packed, bits, numel), codes)
    if bits < 8:
        assert torch.equal(pack_reference(codes, bits), packed) and torch.equal(unpack_reference(packed, bits, numel), codes)


def test_short_stream_is_refused():
    with pytest.raises(ValueError, match="need 6 bytes, got 3"):
        unpack(torch.zeros(3, dtype=torch.uint8), 3, 16)
