"""What OmniQuant and AffineQuant do to a block: smooth its channels, train, install what was learned."""

from collections.abc import Mapping, Sequence
from enum import Enum

import torch
from torch import Tensor

from methods.blocks.affine_norm import AffineNorm
from methods.blocks.input_statistics import channel_extremes
from methods.blocks.installing import install_, make_room_
from methods.blocks.rewriting import Factor
from methods.blocks.smoothing import smoothed
from methods.blocks.training.learned_clipping import learned_ranges
from methods.blocks.training.loop import Course, Learned, Lesson, train
from methods.blocks.training.masked_factors import WHOLE, Site, condition, dominance_margin
from methods.contracts.block import Block
from methods.contracts.problem import Ranges
from methods.contracts.scheme import Scheme
from methods.contracts.seams import NormSeam, QueryKeySeam, Seam, ValueSeam
from methods.contracts.transform import Transformed, Watch
from methods.contracts.tuning import Sample
from methods.solving.ranges import extremes, fit_ranges, grouped

EPOCH_LOSS = "loss_epoch_"  # what the stats call the mean loss of an epoch, before its number from 1
LOGIT_OF_ALL = 4.0  # sigmoid(4) = 0.982 of the range: where clipping starts (OmniQuant's initial value)


class Shift(Enum):
    """Where a shift of the activations is learned, behind norms and at values."""

    none = "none"
    foldable = "foldable"  # where norm and linears have biases that it folds into
    everywhere = "everywhere"  # linears without a bias get one, and norms without one an addition at run time


def learn_(
    block: Block,
    samples: Sequence[Sample],
    scheme: Scheme,
    sites: Sequence[Site],
    alpha: float | None,
    stability: float,
    course: Course,
    watch: Watch,
) -> Transformed:
    """Rewrite the block in place by what is learned at `sites`, and learn the ranges of all its linears.

    Args:
        alpha: of the smoothed start, where in [0, 1] between weights and activations, see
            `methods.blocks.smoothing`; None: no smoothing.
        stability: what the gradual mask multiplies off-diagonals by.
    """
    if alpha is not None:
        install_(block, start_factors(block, samples, sites, alpha))
    unbiased = [path for path in block.linears if block.module.get_submodule(path).bias is None]
    for site in sites:
        make_room_(block, site.seam, site.full, site.shift)
    lesson = Lesson(block, samples, scheme, sites, stability)
    learned = train(lesson, start_leaves(lesson), course, watch)
    leaves = [lesson.site_leaves(learned.leaves, number) for number in range(len(sites))]
    changed = [
        (site, site.factor(own, WHOLE, stability))
        for site, own in zip(sites, leaves, strict=True)
        if _learned_anything(site, own)
    ]
    install_(block, [(site.seam, factor) for site, factor in changed])
    _drop_idle_(block, sites, unbiased)
    matrices = [factor.matrix for site, factor in changed if site.full]
    return Transformed(_ranges(block, scheme, learned), _stats(learned, matrices), learned.fallbacks)


def sites_of(block: Block, scheme: Scheme, full_at: tuple[type, ...], shift: Shift) -> list[Site]:
    """Where something is learned: at norms and values; between queries and keys where these are quantized.

    Args:
        full_at: seams with full matrices; but between normed queries and keys there is a diagonal.
    """
    sites = []
    for seam in block.seams:
        if isinstance(seam, NormSeam):
            biased = seam.has_bias and _have_biases(block, seam.consumers)
            sites.append(Site(seam, isinstance(seam, full_at), _shifted(shift, biased)))
        elif isinstance(seam, ValueSeam):
            biased = _have_biases(block, (seam.value.linear, seam.output))
            sites.append(Site(seam, isinstance(seam, full_at), _shifted(shift, biased)))
        elif isinstance(seam, QueryKeySeam) and scheme.quantizes_activations:
            sites.append(Site(seam, isinstance(seam, full_at) and seam.norms is None, shift=False))
    return sites


def _shifted(shift: Shift, biased: bool) -> bool:
    return shift is Shift.everywhere or (shift is Shift.foldable and biased)


def _have_biases(block: Block, paths: Sequence[str]) -> bool:
    return all(block.module.get_submodule(path).bias is not None for path in paths)


def start_factors(
    block: Block, samples: Sequence[Sample], sites: Sequence[Site], alpha: float
) -> list[tuple[Seam, Factor]]:
    """Smoothing at norms and values, as every learned transform starts; nothing at queries and keys."""
    wanted = [site for site in sites if isinstance(site.seam, NormSeam | ValueSeam)]
    seams = [site.seam for site in wanted]
    readers = [seam.consumers[0] if isinstance(seam, NormSeam) else seam.output for seam in seams]
    found = channel_extremes(block, samples, readers)
    centred = [site.shift and isinstance(site.seam, NormSeam) and site.seam.has_bias for site in wanted]
    return [
        (site.seam, smoothed(block, site.seam, *found[reader], alpha, shift))
        for site, reader, shift in zip(wanted, readers, centred, strict=True)
    ]


def start_leaves(lesson: Lesson) -> dict[str, Tensor]:
    """Parameters that change nothing at the sites, and clip where the scheme's rule does."""
    leaves = {
        f"{number}.{name}": leaf
        for number, site in enumerate(lesson.sites)
        for name, leaf in site.identity(lesson.device).items()
    }
    for path in lesson.block.linears:
        low, high = clip_logits(lesson.base[f"{path}.weight"], lesson.scheme)
        leaves |= {f"{path}.low": low, f"{path}.high": high}
    return leaves


def clip_logits(weight: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Logits (out, groups), at most 4, of the shares of the extremes that the scheme's rule takes."""
    ranges, ends = fit_ranges(weight, scheme), extremes(grouped(weight, scheme), scheme)
    most = torch.sigmoid(torch.tensor(LOGIT_OF_ALL)).item()
    shares = (
        torch.where(end != 0, found / end, 1.0)
        for found, end in zip((ranges.low, ranges.high), ends, strict=True)
    )
    low, high = (torch.logit(share.clamp(0.05, most)) for share in shares)
    return low, high


def _ranges(block: Block, scheme: Scheme, learned: Learned) -> dict[str, Ranges]:
    found = {}
    for path in block.linears:
        weight = block.module.get_submodule(path).weight.detach().float()
        low, high = (learned.leaves[f"{path}.{end}"].sigmoid() for end in ("low", "high"))
        found[path] = learned_ranges(weight, low, high, scheme)
    return found


def _stats(learned: Learned, matrices: Sequence[Tensor]) -> dict[str, float]:
    stats = {"loss_before": learned.loss_before, "loss_after": learned.loss_after, "cost": learned.cost}
    if matrices:
        stats["margin"] = min(dominance_margin(matrix) for matrix in matrices)
        stats["condition"] = max(condition(matrix) for matrix in matrices)
    return stats | {f"{EPOCH_LOSS}{epoch}": loss for epoch, loss in enumerate(learned.losses, 1)}


def _learned_anything(site: Site, leaves: Mapping[str, Tensor]) -> bool:
    """Does the site's factor differ from the one that changes nothing? If not, none need be kept for it."""
    identity = site.identity(next(iter(leaves.values())).device)
    return any(not torch.equal(leaves[name], value) for name, value in identity.items())


def _drop_idle_(block: Block, sites: Sequence[Site], unbiased: Sequence[str]) -> None:
    """Take away room that was not used: wrapped norms without a map, biases of 0 where there were none."""
    for path in unbiased:
        linear = block.module.get_submodule(path)
        if linear.bias is not None and not linear.bias.any():
            linear.bias = None
    for site in sites:
        if isinstance(site.seam, NormSeam):
            norm = block.module.get_submodule(site.seam.norm)
            if isinstance(norm, AffineNorm) and not norm.stored():
                block.module.set_submodule(site.seam.norm, norm.norm)
