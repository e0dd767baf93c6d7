"""Vector weights: what is stored decodes to what was solved, and is counted to the byte."""

import pytest
import torch

from methods.weights.bits_per_weight import bits_per_weight
from methods.weights.book import Book
from methods.weights.vectors import SCALE_DTYPE, Part, VectorWeight, code_bits


def half(*shape: int, seed: int) -> torch.Tensor:
    """Float32 values that float16 holds."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).half().float()


def scales(count: int, seed: int) -> torch.Tensor:
    """Float32 values that a scale's storage holds."""
    return (0.5 + torch.rand(count, generator=torch.Generator().manual_seed(seed))).to(SCALE_DTYPE).float()


def part(columns: torch.Tensor, rows: int, length: int, k: int, k2: int) -> Part:
    generator = torch.Generator().manual_seed(k)
    book = Book(half(k, length, seed=1), half(k2, length, seed=2) if k2 else None)
    codes = tuple(
        torch.randint(len(stage), (len(columns), -(-rows // length)), generator=generator)
        for stage in book.stages
    )
    return Part(columns, codes, book)


def weight(rows: int, form: str) -> VectorWeight:
    order = torch.randperm(20, generator=torch.Generator().manual_seed(7))
    if form == "plain":
        return VectorWeight((rows, 20), (part(torch.arange(20), rows, 4, 256, 0),), None, None, None, 4)
    if form == "residual":
        return VectorWeight(
            (rows, 20), (part(torch.arange(20), rows, 6, 100, 16),), None, None, scales(-(-rows // 6), 5), 6
        )
    groups = [piece.sort().values for piece in (order[:3], order[3:12], order[12:])]
    parts = part(groups[0], rows, 2, 9, 0), part(groups[1], rows, 4, 1, 0), part(groups[2], rows, 4, 1, 5)
    return VectorWeight((rows, 20), parts, scales(20, 3), half(20, seed=4), scales(-(-rows // 4), 5), 4)


FORMS = ["plain", "residual", "parts"]


@pytest.mark.parametrize("rows", [12, 13, 3])
@pytest.mark.parametrize("form", FORMS)
def test_round_trip(form, rows):
    before = weight(rows, form)
    stored = {name: tensor.clone() for name, tensor in before.tensors().items()}
    after = VectorWeight.restore(stored, before.layout())
    assert torch.equal(after.dequantize(), before.dequantize())
    assert after.dequantize().shape == (rows, 20) and before.layout()["kind"] == "vector"
    for name, tensor in after.tensors().items():
        assert torch.equal(tensor, stored[name]) and tensor.dtype == stored[name].dtype


@pytest.mark.parametrize("form", FORMS)
def test_decodes_entry_by_entry(form):
    kept = weight(13, form)
    dense = kept.dequantize()
    for own in kept.parts:
        for n, column in enumerate(own.columns.tolist()):
            for row in range(13):
                vector, i = divmod(row, own.book.length)
                value = sum(
                    stage[code[n, vector], i] for stage, code in zip(own.book.stages, own.codes, strict=True)
                )
                value = value * (1 if kept.row_scale is None else kept.row_scale[row // kept.row_block])
                value = value * (1 if kept.scale is None else kept.scale[column]) + (
                    0 if kept.bias is None else kept.bias[column]
                )
                torch.testing.assert_close(dense[row, column], value)


def bytes_of(codes: int, bits: int) -> int:
    return codes if bits == 8 else -(-codes // 8) * bits


@pytest.mark.parametrize("form, expected", [
    ("plain", bytes_of(4 * 20, 8) + 2 * 256 * 4),
    ("residual", bytes_of(3 * 20, 7) + bytes_of(3 * 20, 4) + 2 * 116 * 6 + 3),
    # 2 bits per column for its part; 4-bit codes of 7 vectors in 3 columns; nothing for a codebook of one;
    # 3-bit codes of its residual
    ("parts", bytes_of(20, 2) + bytes_of(7 * 3, 4) + 2 * 9 * 2 + 2 * 4 + bytes_of(4 * 8, 3) + 2 * 6 * 4 + 20 + 2 * 20 + 4),  # noqa: E501
])  # fmt: skip
def test_bytes_by_hand(form, expected):
    kept = weight(13, form)
    assert sum(tensor.nbytes for tensor in kept.tensors().values()) == expected
    assert bits_per_weight(kept.tensors(), 13 * 20) == pytest.approx(8 * expected / 260)


@pytest.mark.parametrize("count, bits", [(1, 0), (2, 1), (3, 2), (256, 8), (257, 9), (65536, 16)])
def test_code_width(count, bits):
    assert code_bits(count) == bits
