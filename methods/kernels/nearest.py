"""The nearest centroid of each vector: codes[n] = argmin over c of |vector_n - centroid_c|^2.

Of equals the lowest c. |x|^2 is the same for all centroids of a vector x, so that what is compared is the
score |c|^2 / 2 - x . c .
"""

import torch
from torch import Tensor

from methods.kernels.cpu import nearest as compiled
from methods.kernels.threads import over_rows
from methods.kernels.triton_modules import triton_import_module

CHUNK = 2**22  # scores that are in memory at one time
UNIT = 64  # vectors that are not divided between threads


def nearest(vectors: Tensor, codebook: Tensor, exact: bool = True) -> Tensor:
    """The code of each vector.

    Args:
        vectors: (n, length).
        codebook: (centroids, length), same dtype and device.
        exact: false lets an accelerator compare scores of TF32 precision (of float32 vectors).

    Returns:
        (n,) int64.
    """
    device = vectors.device.type
    if device == "cpu" and vectors.dtype in (torch.float32, torch.float64):
        return _on_cpu(vectors, codebook)
    if (
        device == "cuda"
        and vectors.dtype == torch.float32
        and (kernel := triton_import_module("methods.kernels.gpu.nearest"))
    ):
        return kernel.nearest(vectors.contiguous(), codebook.contiguous(), exact)
    return reference(vectors, codebook)


def reference(vectors: Tensor, codebook: Tensor) -> Tensor:
    """One matrix product per chunk of vectors; for any device and floating dtype."""
    half = codebook.square().sum(1) / 2
    chunks = vectors.split(max(1, CHUNK // len(codebook)))
    return torch.cat([torch.addmm(half, chunk, codebook.T, alpha=-1).argmin(1) for chunk in chunks])


def _on_cpu(vectors: Tensor, codebook: Tensor) -> Tensor:
    vectors, codes = vectors.contiguous(), torch.empty(len(vectors), dtype=torch.int64)
    book = compiled.prepared(codebook)

    def some(units: slice) -> None:
        rows = slice(UNIT * units.start, UNIT * units.stop)
        compiled.nearest(vectors.numpy().dtype)(vectors[rows].numpy(), *book, codes[rows].numpy())

    over_rows(some, -(-len(vectors) // UNIT), vectors.device)
    return codes
