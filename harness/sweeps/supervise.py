"""A point in a process of its own, and the record of one that died without leaving any.

The process that supervises claims the run, so that the claim outlives whatever happens to the child.
"""

import yaml

from harness.bookkeeping.description import describe
from harness.bookkeeping.endings import died, last_seen, stopped
from harness.bookkeeping.keys import plain, semantic
from harness.bookkeeping.point import Point
from harness.foundation.redaction import scrub_file
from harness.foundation.resources import killed_for_memory
from harness.records import layout
from harness.records.attempts import Claim, claim
from harness.sweeps.worker import Lost, Worker

RUNNING = "running"  # by somebody else


def supervise(point: Point, worker: Worker) -> str:
    """Run one point, made by `Point.of_plain`, in a child of `worker`.

    Returns:
        the status of its record, or `running` if another process is at it.
    """
    if point.finished():
        return point.status()
    mine = claim(point.store.open(point.key))
    if mine is None:
        return RUNNING
    with mine:
        if not point.finished():  # since we looked
            _in_child(point, mine, worker)
        return point.status()


def _in_child(point: Point, mine: Claim, worker: Worker) -> None:
    config, directory, before = point.config, point.directory, killed_for_memory()
    seconds = config.time_limit and 60 * config.time_limit
    try:
        code = worker.run({"point": point.plain, "attempt": mine.number}, directory / layout.LOG, seconds)
        where = last_seen(directory, mine.number)
        ending = (
            stopped(config, where)
            if code is None
            else died(code, where, directory, killed_for_memory() > before)
        )
    except Lost as error:
        ending = {
            "status": "failed",
            "reason": f"{error} {last_seen(directory, mine.number)}; retry=true goes on from there",
        }
    scrub_file(directory / layout.LOG)  # whatever libraries printed went there as it was
    record = point.record()
    if record is None or record.get("attempt") != mine.number:
        record = describe(config, point.key) | {"attempt": mine.number} | ending
        point.store.commit(point.key, record, {}, {}, yaml.safe_dump(plain(semantic(config))))
