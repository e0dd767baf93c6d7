"""`hydra/launcher=local`: the points of a sweep on this machine, as many at once as there are slots."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from queue import SimpleQueue

from harness.bookkeeping.point import Point
from harness.foundation.errors import UserError
from harness.run import run
from harness.sweeps.supervise import supervise
from harness.sweeps.worker import Worker, gpus

# what every point imports
LIBRARIES = ("harness.run", "harness.evaluation.language_model", "harness.evaluation.tasks")


def launch(points: Sequence[dict], slots: int | None) -> list[str]:
    """Run points and return their statuses, in order.

    Args:
        points: what `plain_config` gives for each.
        slots: points at once; None: one per GPU, or one on a machine without. Slots share the GPUs, or the
            cores, evenly.

    Raises:
        UserError: slots below 1; several slots without processes of their own.
    """
    if slots is not None and not (isinstance(slots, int) and slots >= 1):
        raise UserError(f"hydra.launcher.slots={slots}: must be at least 1 (null: one per GPU)")
    if not points[0]["isolate"]:
        if (slots or 1) > 1:
            raise UserError(f"hydra.launcher.slots={slots}: several points at once need isolate=true")
        return [run(Point.of_plain(point))["status"] for point in points]
    workers = _workers(slots)
    free = SimpleQueue()
    for worker in workers:
        free.put(worker)

    def one(point: dict) -> str:
        worker = free.get()
        try:
            return supervise(Point.of_plain(point), worker)
        finally:
            free.put(worker)

    with ThreadPoolExecutor(len(workers)) as pool:
        try:
            return list(pool.map(one, points))
        except BaseException:  # ^C must not wait for points at work
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.stop()
            _workers.cache_clear()
            raise


@cache  # a sweep launches more than once, and their libraries are imported by now
def _workers(slots: int | None) -> list[Worker]:
    devices = gpus()
    slots = slots or len(devices) or 1
    if devices:
        return [Worker({"CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]}) for slot in range(slots)]
    threads = max(1, (os.cpu_count() or 1) // slots)
    return [Worker({"OMP_NUM_THREADS": str(threads)} if slots > 1 else {}, LIBRARIES) for _ in range(slots)]
