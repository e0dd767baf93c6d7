"""AWQ: channels with large activations are scaled up before rounding, by a power; weights are clipped.

Lin, Tang, Tang, Yang, Chen, Wang, Xiao, Dang, Gan, Han: AWQ: Activation-aware Weight Quantization for
On-Device LLM Compression and Acceleration, MLSys 2024, arXiv 2306.00978. Eq. 4 and 5; the normalisation of s
and the clipping are those of the authors' code.

    paper                            code
    s_X = mean |x|                   sizes: of each input channel, over all calibration tokens
    s = s_X^alpha, alpha in [0, 1]   scales_of(sizes, ratio), ratio = 0, 1/points, ...; / sqrt(max s * min s)
    L(s), Eq. 4                      squared error of the block's output, the linears behind the seam rounded
                                     (min-max) and no others

One seam is searched after another along the data flow, with what was found before in place. Where the scheme
rounds activations, they are rounded during the search as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor

from methods.blocks.activations import quantized_activations
from methods.blocks.clip_search import clip_block
from methods.blocks.functional import float32, run_with, values_of
from methods.blocks.input_statistics import channel_sizes, first
from methods.blocks.installing import install_
from methods.blocks.rewriting import Factor, Values, rewrite
from methods.contracts.block import Block
from methods.contracts.bounds import Count, Size, Within, check_bounds
from methods.contracts.effort import ENTRY, BlockEffort
from methods.contracts.scheme import RangeRule, Scheme
from methods.contracts.seams import MiddleSeam, NormSeam, Seam, ValueSeam
from methods.contracts.transform import Transformed, Watch
from methods.contracts.tuning import Sample
from methods.solving.ranges import fit_grid

TINY = 1e-30  # for targets that are 0 throughout


@dataclass(frozen=True)
class AWQ:
    """Scales serve every solver. Clipped end points, which compete with those of `scheme.range`, serve
    solvers of grids; solvers with codebooks of their own ignore them, and clip=false saves them the search.

    Raises:
        ValueError: a field is out of range; the message names it.
    """

    points: Count  # ratios that are tried at each seam: 0, 1/points, ..., 1 - 1/points
    # calibration tokens that the search of ratios looks at, the first ones, rounded up to whole sequences
    search_tokens: Size
    clip: bool  # search the end points of grids as well
    clip_steps: Count  # shares of the largest |w| that are tried, evenly from 1 down
    clip_floor: Annotated[float, Within(0, 1, below=True)]  # where one step more would end

    trains: ClassVar[bool] = False

    def __post_init__(self):
        check_bounds(self)

    def skip_reason(self, scheme: Scheme, seams: Sequence[Seam]) -> str | None:
        if not any(readers(seam) for seam in seams):
            return (
                "AWQ scales channels, and the blocks of this model have no place where a scale can pass "
                "(no seams in the family table)"
            )
        return None

    def operations(self, block: BlockEffort, scheme: Scheme) -> float:
        """A pass for the sizes, and `points` of the search tokens at each seam; then all shares."""
        searched = max(block.window, -(-self.search_tokens // block.window) * block.window)
        seams = sum(bool(readers(seam)) for seam in block.seams)
        scaling = block.forward * (1 + self.points * seams * min(1.0, searched / block.tokens))
        if not self.clip:
            return scaling
        shapes, size = block.linears, scheme.group_size
        costs = sum(rows * columns * (2 * (size or columns) + 4 * ENTRY) for rows, columns in shapes)
        return scaling + block.forward + (self.clip_steps + 1) * costs

    @torch.no_grad()
    def apply_(self, block: Block, samples: Sequence[Sample], scheme: Scheme, watch: Watch) -> Transformed:
        seams = [seam for seam in block.seams if readers(seam)]
        sizes = channel_sizes(block, samples, [readers(seam)[0] for seam in seams])
        few, scaling = first(block, samples, self.search_tokens), self.points * len(seams)
        steps = scaling + (len(block.groups) if self.clip else 0)
        searched = []
        for number, seam in enumerate(seams):
            searched.append(self.search(block, seam, sizes[readers(seam)[0]], few, scheme))
            if searched[-1].ratio:  # scales of 1 would change nothing but rounding noise
                install_(block, [(seam, searched[-1].factor)])
            watch((number + 1) * self.points, steps, f"scaling, ratio {searched[-1].ratio:g}")
        shares = [1 - (1 - self.clip_floor) * step / self.clip_steps for step in range(self.clip_steps)]
        ranges = {}
        if self.clip:

            def clipped(done: int) -> None:
                watch(scaling + done, steps, "clipping")

            ranges = clip_block(block, samples, scheme, shares, clipped)
        names = ("ratio", "loss_before", "loss_after")
        means = {name: sum(getattr(each, name) for each in searched) / len(searched) for name in names}
        return Transformed(ranges, means)

    def search(
        self, block: Block, seam: Seam, sizes: Tensor, samples: Sequence[Sample], scheme: Scheme
    ) -> "Found":
        """The best ratio at one seam; the smaller one where two are equally good.

        Args:
            sizes: (in,) mean |x| of what the seam's consumers read.
        """
        base, best = float32(values_of(block)), None
        energy = max(sum(sample.target.double().square().sum().item() for sample in samples), TINY)
        ratios = [point / self.points for point in range(self.points)]
        factors = [Factor(scales_of(_per_factor(seam, sizes), ratio)) for ratio in ratios]
        with quantized_activations(block, scheme):
            for ratio, factor in zip(ratios, factors, strict=True):
                values = rounded(rewrite(base, seam, factor) if ratio else base, readers(seam), scheme)
                loss = sum(_squared_error(block, sample, values) for sample in samples) / energy
                if best is None:
                    best = Found(ratio, factor, loss, loss)
                elif loss < best.loss_after:  # never true of what is not finite
                    best = Found(ratio, factor, best.loss_before, loss)
        return best


class Found(NamedTuple):
    """The outcome of a search; losses are squared errors of the block's output over its target's square."""

    ratio: float
    factor: Factor
    loss_before: float  # at ratio 0
    loss_after: float


def readers(seam: Seam) -> tuple[str, ...]:
    """The linears whose input channels a diagonal at this seam scales; none between queries and keys."""
    if isinstance(seam, NormSeam):
        return seam.consumers
    if isinstance(seam, ValueSeam):
        return (seam.output,)
    return (seam.down,) if isinstance(seam, MiddleSeam) else ()


def scales_of(sizes: Tensor, ratio: float) -> Tensor:
    """size^ratio over the geometric mean of the largest and the smallest; 1 for channels that are dead."""
    live = sizes > 0
    scales = torch.where(live, sizes, 1.0).pow(ratio)
    if live.any():
        scales = scales / (scales[live].max() * scales[live].min()).sqrt()
    return torch.where(live & scales.isfinite() & (scales > 0), scales, 1.0)


def rounded(values: Values, paths: Sequence[str], scheme: Scheme) -> dict[str, Tensor]:
    """The parameters with the weights of these linears rounded to the nearest point of min-max grids."""
    scheme = replace(scheme, range=RangeRule.minmax)
    weights = {f"{path}.weight": values[f"{path}.weight"] for path in paths}
    return dict(values) | {name: fit_grid(weight, scheme).round(weight) for name, weight in weights.items()}


def _per_factor(seam: Seam, sizes: Tensor) -> Tensor:
    """Sizes in the form of the seam's diagonal: query heads that share a value head share its factor."""
    return sizes.view(seam.value.count, -1, seam.value.size).mean(1) if isinstance(seam, ValueSeam) else sizes


def _squared_error(block: Block, sample: Sample, values: Values) -> float:
    device = next(iter(values.values())).device
    output = run_with(block, sample.hidden.to(device), sample.call, values)
    return (output - sample.target.to(device).float()).square().sum(dtype=torch.float64).item()
