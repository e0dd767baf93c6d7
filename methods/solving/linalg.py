"""The factor of the Hessian that sequential rounding needs, and the error that every method is scored by.

Both compute in float64 whatever they are given: at 2 bits the float32 Cholesky of real Hessians fails or is
far off.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

DAMPING_RISE, SMALLEST_RISE, MOST_RISES = 10.0, 1e-6, 20


@dataclass(frozen=True)
class UpperFactor:
    """Upper triangular R with H + damping * mean(diag H) * I = R R^T."""

    upper: Tensor  # (in, in) float64
    damping: float  # relative to the mean diagonal; what was used, not what was asked for
    fallbacks: tuple[str, ...] = ()


def upper_factor(hessian: Tensor, damping: float) -> UpperFactor:
    """Damp until positive definite, then factor.

    The error of a row is |(q - w) R|^2, and entry k of (q - w) R depends on the columns up to k alone: so
    rounding in order leaves column k the target w_k - sum over j < k of (q_j - w_j) R_jk / R_kk. GPTQ's
    factor of the inverse is inverse(R), never needed.

    A column that was always zero in the calibration data (a zero on the diagonal) is decoupled from the
    others.

    Args:
        hessian: (in, in) symmetric; columns in the order in which they will be rounded.
        damping: what to add to the diagonal at first, relative to its mean; it rises tenfold until Cholesky
            succeeds.

    Raises:
        ValueError: the Hessian is not finite, or so indefinite that no reasonable damping helps.
    """
    matrix, scale = live_hessian(hessian.double())
    flipped = torch.flip(matrix, (0, 1))  # its lower factor, flipped back, is the upper one
    del matrix  # each of these is twice the size of a float32 Hessian
    diagonal = torch.diagonal(flipped)
    undamped, used = diagonal.clone(), damping
    for _ in range(MOST_RISES):
        diagonal.copy_(undamped + used * scale)
        lower, info = torch.linalg.cholesky_ex(flipped)
        if info.item() == 0:
            del flipped, diagonal
            raised = () if used == damping else (f"damping raised from {damping:g} to {used:g}",)
            return UpperFactor(torch.flip(lower, (0, 1)), used, raised)
        used = max(used * DAMPING_RISE, SMALLEST_RISE)
    raise ValueError(
        f"Hessian is not positive definite even at a damping of {used:g} times its mean diagonal"
    )


def live_hessian(hessian: Tensor) -> tuple[Tensor, Tensor]:
    """The Hessian with its dead columns cut off from the others, and the mean diagonal of the live ones,
    which dead columns get too.

    Raises:
        ValueError: an entry is not finite.
    """
    if not torch.isfinite(hessian.sum()):
        raise ValueError("Hessian has entries that are not finite; the calibration activations overflowed")
    live = torch.diagonal(hessian) > 0
    if live.all():
        return hessian, torch.diagonal(hessian).mean()
    scale = torch.diagonal(hessian)[live].mean() if live.any() else hessian.new_ones(())
    matrix = hessian * (live[:, None] & live)
    torch.diagonal(matrix)[~live] = scale
    return matrix, scale


def unit_hessian(hessian: Tensor) -> Tensor:
    """The live Hessian divided by its mean diagonal, so that products with it neither overflow nor vanish; no
    minimiser moves.
    """
    matrix, scale = live_hessian(hessian)
    return matrix / scale


def energy(weight: Tensor, hessian: Tensor) -> Tensor:
    """w H w^T of every row, (out,) float64: the mean squared output that a row of weights produces."""
    rows = weight.double()
    return ((rows @ hessian.double()) * rows).sum(1)


def layer_error(weight: Tensor, rounded: Tensor, hessian: Tensor, total: float | None = None) -> float:
    """tr((W-Q) H (W-Q)^T) / tr(W H W^T) in float64; 0 where nothing is lost, even of nothing, and infinite
    where nothing was there to lose.

    `total` is the denominator, for callers that know it already.
    """
    lost = energy(weight.double() - rounded.double(), hessian).sum().item()
    if not lost:
        return 0.0
    total = energy(weight, hessian).sum().item() if total is None else total
    return lost / total if total else math.inf


def column_order(hessian: Tensor, act_order: bool) -> tuple[Tensor | slice, Tensor | slice]:
    """An index that puts columns into the order of rounding (by falling diagonal, ties in place; or as they
    are), and its inverse.
    """
    if not act_order:
        return slice(None), slice(None)
    order = torch.argsort(torch.diagonal(hessian), descending=True, stable=True)
    return order, torch.argsort(order)
