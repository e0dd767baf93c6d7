"""Full matrices behind norms, folded into the rounded weights while a block is trained: the same loss, the
same gradients.
"""

import pytest
import torch

from harness.models import tiny
from harness.models.families import family_of
from harness.quantization.blocks import ModelBlocks
from methods.blocks.installing import make_room_
from methods.blocks.training.learned_transform import Shift, sites_of, start_leaves
from methods.blocks.training.loop import Lesson
from methods.contracts.seams import NormSeam, ValueSeam
from methods.contracts.tuning import Sample
from tests.helpers.problems import scheme
from tests.helpers.tiny_models import tokens

W3 = scheme(bits=3)


def lesson(family: str, windows: int, shift: Shift) -> Lesson:
    """One batch at the second block of a tiny model, with room for full matrices behind its norms."""
    model, _ = tiny.tiny_model(family)
    source = ModelBlocks(model, family_of(model.config))
    first, block, *_ = source
    (entry,) = source.capture(tokens(windows, 32), windows)
    with torch.no_grad():
        hidden = first.run(entry.hidden, entry.calls[0])
        sample = Sample(hidden, entry.calls[1], block.run(hidden, entry.calls[1]))
    sites = sites_of(block, W3, (NormSeam, ValueSeam), shift)
    for site in sites:
        make_room_(block, site.seam, site.full, site.shift)
    return Lesson(block, [sample], W3, sites, 0.2)


def some_leaves(work: Lesson) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    noisy = {
        name: leaf + 0.05 * torch.randn(leaf.shape, generator=generator)
        for name, leaf in start_leaves(work).items()
    }
    return {name: leaf.requires_grad_() for name, leaf in noisy.items()}


@pytest.mark.parametrize("shift", [Shift.none, Shift.everywhere])
@pytest.mark.parametrize(
    ("family", "windows", "folded"), [("llama", 2, 0), ("llama", 6, 1), ("llama", 10, 2), ("opt", 10, 2)]
)
def test_folded_or_not_loss_and_gradients_are_the_same(family, windows, folded, shift, monkeypatch):
    """Rows behind the norms of a tiny llama: 128 and 256; of a tiny OPT 192 and 128. 32 tokens a window."""
    work = lesson(family, windows, shift)
    leaves = some_leaves(work)
    values = work.values(leaves, 0.5)
    assert sum(name.endswith(".inverse") for name in values) == 2 - folded
    loss = work.loss(work.samples[0], values)
    found = torch.autograd.grad(loss, list(leaves.values()))
    monkeypatch.setattr(Lesson, "_fold_map_", lambda self, values, seam: None)
    values = work.values(leaves, 0.5)
    assert sum(name.endswith(".inverse") for name in values) == 2, "here the wrapped norms multiply"
    expected = work.loss(work.samples[0], values)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for name, mine, theirs in zip(
        leaves, found, torch.autograd.grad(expected, list(leaves.values())), strict=True
    ):
        assert (mine - theirs).abs().max() <= 1e-4 * theirs.abs().max(), name


def test_nothing_is_folded_where_activations_are_rounded():
    work = lesson("llama", 10, Shift.none)
    work.scheme = scheme(bits=4, act_bits=4)
    assert sum(name.endswith(".inverse") for name in work.values(start_leaves(work), 0.5)) == 2
