"""What the walk over the blocks tells about itself: one report per linear, one per block."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class LayerReport:
    """What happened to one linear."""

    layer: str  # full path, e.g. model.layers.3.mlp.down_proj
    block: int
    linear: str  # path inside the block
    out_features: int
    in_features: int
    error: float  # tr((W-Q) H (W-Q)^T) / tr(W H W^T)
    bits: float  # stored bits per weight
    outliers: float  # share of its entries kept in float16
    seconds: float  # in the solver
    damping: float | None
    fallback: str | None  # anything done instead of what was asked


@dataclass(frozen=True)
class BlockReport:
    """What happened to one block beyond its linears."""

    name: str  # e.g. model.layers.3
    block: int
    error: float  # ||y_q - y||^2 / ||y||^2 of its output on the calibration text, y that of the float model
    seconds: float  # in the transform
    # stored for it beyond the linears' weights: matrices behind norms, biases that linears gained
    extra_bytes: int
    multiply_adds: int  # per token, beyond those of its linears
    # what the transform tells, e.g. loss_before, loss_after, margin, condition, cost; of a tuning
    # tuning_error_before and tuning_error_after, mean squared errors of the block's output
    stats: Mapping[str, float]
    fallback: str | None  # anything done instead of what was asked
    # mean training loss of each epoch: a curve, kept out of the summary and of what trackers are told
    losses: Sequence[float] = ()

    def row(self) -> dict:
        """One flat row of a table: the transform's stats as `stats.<name>`, the loss of every epoch as
        `loss_epoch_<n>`, n from 1.
        """
        fields = asdict(self)
        stats, losses = fields.pop("stats"), fields.pop("losses")
        fields |= {f"stats.{name}": value for name, value in sorted(stats.items())}
        return fields | {f"loss_epoch_{epoch}": loss for epoch, loss in enumerate(losses, 1)}


@dataclass
class Walked:
    """What the walk over the blocks has told so far."""

    layers: list[LayerReport] = field(default_factory=list)
    blocks: list[BlockReport] = field(default_factory=list)


def summary(walked: Walked) -> dict:
    """What the record says of the walk; the keys of blocks only where there were reports of them.

    `bits_per_weight` counts everything that is stored for the linears: also matrices behind norms and biases
    that a transform added.
    """
    layers, blocks = walked.layers, walked.blocks
    if not layers:
        return {"bits_per_weight": None, "outlier_share": 0.0, "layer_error": None, "fallbacks": []}
    numel = sum(layer.out_features * layer.in_features for layer in layers)
    extra = 8 * sum(block.extra_bytes for block in blocks) / numel
    fields = {
        "bits_per_weight": per_weight(layers, "bits") + extra,
        "outlier_share": per_weight(layers, "outliers"),
        "layer_error": _mean_and_max([layer.error for layer in layers]),
        "fallbacks": [f"{layer.layer}: {layer.fallback}" for layer in layers if layer.fallback],
    }
    if blocks:
        added = sum(block.multiply_adds for block in blocks)
        names = sorted({name for block in blocks for name in block.stats})
        stats = {name: [block.stats[name] for block in blocks if name in block.stats] for name in names}
        fields["block_error"] = _mean_and_max([block.error for block in blocks])
        fields["runtime_overhead"] = {"multiply_adds_per_token": added, "share": added / numel}
        fields["transform"] = {
            name: _mean_and_max(values) | {"min": min(values)} for name, values in stats.items()
        } or None
        fields["fallbacks"] += [f"{block.name}: {block.fallback}" for block in blocks if block.fallback]
    return fields


def per_weight(layers: Sequence[LayerReport], field: str) -> float:
    """Mean of a field over all weights of all linears."""
    sizes = [layer.out_features * layer.in_features for layer in layers]
    return sum(getattr(layer, field) * size for layer, size in zip(layers, sizes, strict=True)) / sum(sizes)


def _mean_and_max(values: Sequence[float]) -> dict[str, float]:
    return {"mean": sum(values) / len(values), "max": max(values)}
