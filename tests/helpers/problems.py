"""Layer problems for tests: small, seeded, with the correlated inputs that make solvers differ."""

from dataclasses import replace

import torch

from methods.contracts.problem import LayerProblem
from methods.contracts.scheme import ActRange, OutlierStructure, RangeRule, Scheme, ZeroPoint

WEIGHTS = (3, None, False, ZeroPoint.integer, RangeRule.minmax, None, 16, 0.0, OutlierStructure.unstructured)
PLAIN = Scheme(*WEIGHTS, act_bits=None, act_symmetric=False, act_range=ActRange.token, kv_bits=None)


def scheme(**fields) -> Scheme:
    """3 bits, one min-max grid per output channel, an integer zero point, no outliers, float activations: but
    for what is given.
    """
    return replace(PLAIN, **fields)


def correlated_hessian(
    columns: int, seed: int, dtype=torch.float64, tokens: int | None = None
) -> torch.Tensor:
    """E[x x^T] of inputs with a few strong shared directions and uneven column sizes."""
    generator = torch.Generator().manual_seed(seed)
    tokens = tokens or 4 * columns

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sizes = 0.2 + torch.rand(columns, generator=generator, dtype=torch.float64)
    inputs = (normal(tokens, 3) @ normal(3, columns) + normal(tokens, columns)) * sizes
    return (inputs.T @ inputs / tokens).to(dtype)


def layer_problem(rows=24, columns=64, seed=0, dtype=torch.float64, **of_scheme) -> LayerProblem:
    generator = torch.Generator().manual_seed(1000 + seed)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64) * 0.05
    return LayerProblem(weight.to(dtype), correlated_hessian(columns, seed, dtype), scheme(**of_scheme))
