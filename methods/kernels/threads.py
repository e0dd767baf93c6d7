"""Rows of a matrix in parallel on a CPU.

Every solver treats rows independently, so the cheapest parallel form is coarse: each thread takes a slice of
rows through the whole algorithm with single-threaded kernels and matrix products. Nothing waits for anything,
and no two thread pools (torch's OpenMP workers, which spin, and a compiled kernel's own) fight over the same
cores.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TypeVar

import torch

Result = TypeVar("Result")
# how many rows two slices share; the slices depend on the matrix alone, never on the machine
ROWS_OF_TWO = 768


def over_rows(
    work: Callable[[slice], Result], rows: int, device: torch.device, together: int = 1
) -> list[Result]:
    """`work(slice)` for slices that cover `rows`, results in order; inside `work` there is one thread.

    Args:
        together: neighbouring rows that must not be parted: slices hold whole blocks of so many.
    """
    blocks = row_slices(-(-rows // together)) if device.type == "cpu" else [slice(0, rows)]
    slices = [slice(block.start * together, min(block.stop * together, rows)) for block in blocks]
    threads = torch.get_num_threads()
    if threads == 1 or len(slices) == 1:
        return [work(part) for part in slices]
    inference = torch.is_inference_mode_enabled()

    def run(part: slice) -> Result:
        with torch.inference_mode(inference), torch.no_grad():  # both are settings of a thread
            return work(part)

    torch.set_num_threads(1)
    try:
        return list(_pool(threads).map(run, slices))
    finally:
        torch.set_num_threads(threads)


def row_slices(rows: int) -> list[slice]:
    """An even number of nearly equal slices."""
    parts = min(rows, 2 * -(-rows // ROWS_OF_TWO))
    ends = [rows * k // parts for k in range(parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="rows")
