"""Rewriting at seams: the conventions, the gradients, the wrapped norm, and what is refused."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from methods.blocks.affine_norm import AffineNorm
from methods.blocks.functional import values_of
from methods.blocks.installing import install_, make_room_
from methods.blocks.rewriting import Factor, rewrite, shapes_at
from methods.contracts.block import Block
from methods.contracts.seams import Heads, MiddleSeam, NormSeam, QueryKeySeam, ValueSeam
from tests.helpers.random_factors import allowed, random_factor
from tests.helpers.seam_settings import Setting, setting

# --- conventions and gradients
# -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["llama", "gemma3", "opt", "falcon_one_norm", "gpt_neox"])
@torch.no_grad()
def test_a_rewritten_mapping_computes_the_same(variant):
    """What training does: parameters from `rewrite` in place of the block's own."""
    start, generator = setting(variant, torch.float64), torch.Generator().manual_seed(2)
    block = start.copy()
    for seam in block.seams:
        make_room_(block, seam, matrix=True, shift=True)
    values = values_of(block)
    for seam in block.seams:
        values = rewrite(values, seam, random_factor(seam, generator, full=True, shift=True))
    output = functional_call(block.module, values, (start.hidden, *start.call.args), dict(start.call.kwargs))
    output = output if isinstance(output, Tensor) else output[0]
    assert (output - start.output).abs().max() < 1e-10 * start.output.abs().max()
    assert start.distance(block) == 0  # the block itself is as it was


@torch.no_grad()
def inputs_of(start: Setting, block: Block) -> dict[str, Tensor]:
    """What every linear of a block reads."""
    seen, paths = {}, [path for group in block.groups for path in group]
    for path in paths:
        block.module.get_submodule(path).register_forward_pre_hook(
            lambda module, inputs, path=path: seen.__setitem__(path, inputs[0])
        )
    block.run(start.hidden, start.call)
    return seen


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("variant", ["qwen2", "gemma3", "opt", "falcon_old", "gpt_neox_whole"])
def test_consumers_read_shifted_activations_times_the_inverse(variant, full):
    """x' = (x - shift) A^-1, straight from the definition; other methods choose A by it."""
    start, generator = setting(variant, torch.float64), torch.Generator().manual_seed(3)
    before = inputs_of(start, start.copy())
    for seam in start.block.seams:
        if isinstance(seam, QueryKeySeam):
            continue
        factor = random_factor(seam, generator, full, shift=True)
        block = start.copy()
        install_(block, [(seam, factor)])
        matrix, shift, paths = (
            factor.matrix,
            factor.shift,
            {NormSeam: "consumers", ValueSeam: "output", MiddleSeam: "down"},
        )
        if isinstance(seam, ValueSeam):  # every query head by itself
            shared = seam.query_heads // seam.value.count
            heads = matrix if full else torch.diag_embed(matrix)
            matrix, shift = (
                torch.block_diag(*heads.repeat_interleave(shared, 0)),
                shift.repeat_interleave(shared, 0).flatten(),
            )
        elif matrix.ndim == 1:
            matrix = matrix.diag()
        named = getattr(seam, paths[type(seam)])
        after, kept = (
            inputs_of(start, block),
            1e-2 if isinstance(seam, NormSeam) and not (seam.has_bias and not full) else 1e-10,
        )
        for path in (named,) if isinstance(named, str) else named:
            expected = (before[path] if shift is None else before[path] - shift) @ torch.linalg.inv(matrix)
            # what is kept was rounded to float16
            assert (after[path] - expected).abs().max() < kept * expected.abs().max()


@pytest.mark.parametrize("variant", ["falcon_new", "gpt_neox", "llama"])
def test_queries_and_keys_stay_products(variant):
    """Keys, as rows, become k A^T: the same for a rotated head."""
    start = setting(variant, torch.float64)
    (seam,) = (seam for seam in start.block.seams if isinstance(seam, QueryKeySeam))
    factor, block = (
        random_factor(seam, torch.Generator().manual_seed(4), full=True, shift=False),
        start.copy(),
    )
    install_(block, [(seam, factor)])
    old, new = values_of(start.block), values_of(block)
    for head in range(seam.key.count):
        rows = seam.key.rows[head]
        expected = factor.matrix[head] @ old[f"{seam.key.linear}.weight"][rows]
        torch.testing.assert_close(new[f"{seam.key.linear}.weight"][rows], expected, rtol=0, atol=1e-12)


ROWS = torch.randperm(8, generator=torch.Generator().manual_seed(0)).view(2, 4)
TINY_SEAMS = [  # (seam, parameters it reads)
    (NormSeam("n", ("c",), 4, one_plus=True), {"n.norm.weight": (4,), "c.weight": (3, 4), "c.bias": (3,)}),
    (
        NormSeam("n", ("c", "d"), 4, has_bias=True),
        {"n.norm.weight": (4,), "n.norm.bias": (4,)} | {f"{x}.weight": (3, 4) for x in "cd"},
    ),
    (
        ValueSeam(Heads("v", ROWS), "o", 4),
        {"v.weight": (9, 3), "v.bias": (9,), "o.weight": (3, 16), "o.bias": (3,)},
    ),
    (
        QueryKeySeam(Heads("q", ROWS), Heads("k", ROWS[:1]), 0),
        {"q.weight": (8, 3), "k.weight": (8, 3), "k.bias": (8,)},
    ),
    (
        QueryKeySeam(Heads("q", ROWS), Heads("k", ROWS), 4, ("a", "b"), True),
        {"a.weight": (4,), "b.weight": (4,)},
    ),
    (MiddleSeam("u", "d", 5), {"u.weight": (5, 3), "u.bias": (5,), "d.weight": (3, 5)}),
]


@pytest.mark.parametrize("seam, shapes", TINY_SEAMS, ids=lambda value: type(value).__name__)
def test_gradients_reach_factors_and_parameters(seam, shapes):
    generator = torch.Generator().manual_seed(5)
    if getattr(seam, "has_bias", False):
        shapes = shapes | {f"{path}.bias": (3,) for path in seam.consumers}
    values = [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in shapes.values()
    ]
    for full, shift in allowed(seam):
        factor = random_factor(seam, generator, full, shift)
        leaves = [leaf.requires_grad_() for leaf in (factor.matrix, factor.shift) if leaf is not None]

        def rewritten(*tensors, count):
            new = rewrite(dict(zip(shapes, tensors[count:], strict=True)), seam, Factor(*tensors[:count]))
            return tuple(new[name] for name in sorted(new))

        assert torch.autograd.gradcheck(partial(rewritten, count=len(leaves)), (*leaves, *values))


def test_a_given_inverse_is_used():
    generator = torch.Generator().manual_seed(6)
    for seam, shapes in TINY_SEAMS[1:4]:
        shapes = shapes | {f"{path}.bias": (3,) for path in getattr(seam, "consumers", ())}
        values = {
            name: torch.randn(shape, generator=generator, dtype=torch.float64)
            for name, shape in shapes.items()
        }
        for full in (False, True):
            factor = random_factor(seam, generator, full, shift=False)
            known = replace(factor, inverse=torch.linalg.inv(factor.matrix) if full else 1 / factor.matrix)
            plain, given = rewrite(values, seam, factor), rewrite(values, seam, known)
            for name in plain:
                torch.testing.assert_close(given[name], plain[name], rtol=1e-12, atol=0)
            doubled = rewrite(values, seam, replace(known, inverse=2 * known.inverse))
            assert any(not torch.equal(doubled[name], given[name]) for name in plain)


# --- the wrapped norm
# --------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_wrapped_norm():
    norm = AffineNorm(nn.LayerNorm(6, dtype=torch.float64))
    hidden = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = norm.norm(hidden)
    assert (
        torch.equal(norm(hidden), plain)
        and norm.stored() == {}
        and norm.multiply_adds() == 0
        and str(norm).count("identity")
    )
    norm.shift = torch.randn(6, generator=torch.Generator().manual_seed(1)).half()
    torch.testing.assert_close(norm(hidden), plain - norm.shift.double(), rtol=0, atol=0)
    norm.inverse = torch.randn(6, 6, generator=torch.Generator().manual_seed(2)).half()
    expected = torch.einsum("bti,ij->btj", plain - norm.shift.double(), norm.inverse.double())
    torch.testing.assert_close(norm(hidden), expected)
    assert norm(hidden).dtype == torch.float64 and norm.multiply_adds() == 36
    assert {name: tensor.dtype for name, tensor in norm.stored().items()} == {
        "shift": torch.float16,
        "inverse": torch.float16,
    }
    assert set(norm.state_dict()) == {"norm.weight", "norm.bias", "shift", "inverse"}


# --- what must fail
# ----------------------------------------------------------------------------------------------


def test_what_cannot_stand_at_a_seam_is_refused():
    block = setting("qwen3").copy()
    norm, queries, values, _, middle = block.seams
    for seam, shape in [
        (queries, (2, 16)),
        (queries, (2, 16, 16)),
        (middle, (128, 128)),
        (values, (16, 16)),
        (norm, (63,)),
    ]:
        with pytest.raises(ValueError, match="cannot stand"):
            install_(block, [(seam, Factor(torch.ones(shape)))])
    for seam in (queries, middle):
        with pytest.raises(ValueError, match="shift cannot pass"):
            install_(block, [(seam, Factor(torch.ones(shapes_at(seam)[0]), torch.ones(shapes_at(seam)[0])))])
    with pytest.raises(KeyError):  # no room
        rewrite(values_of(block), norm, Factor(torch.eye(64)))
    factor = random_factor(norm, torch.Generator().manual_seed(0), full=True, shift=True)
    install_(block, [(norm, factor)])
    with pytest.raises(ValueError, match="stands there already"):
        install_(block, [(norm, factor)])


def test_what_float16_cannot_hold_is_refused():
    block = setting("llama").copy()
    for factor in (
        Factor(1e-6 * torch.eye(64)),
        Factor(1e-6 * torch.ones(64), torch.ones(64)),
        Factor(torch.eye(64), torch.full((64,), 1e5)),
    ):
        with pytest.raises(ValueError, match=r"model\.layers\.0\.input_layernorm.*float16"):
            install_(block, [(block.seams[0], factor)])
