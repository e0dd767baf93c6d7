"""A point in a process of its own, and the record of one that died without leaving any.

The process that supervises claims the run, so that the claim outlives whatever happens to the child.
"""

import yaml

from harness.bookkeeping.description import describe
from harness.bookkeeping.endings import died, last_seen, stopped
from harness.bookkeeping.keys import plain, run_key, semantic
from harness.bookkeeping.token_ids import finished
from harness.config.run_config import RunConfig, from_plain
from harness.foundation.redaction import scrub_file
from harness.foundation.resources import killed_for_memory
from harness.records import layout
from harness.records.attempts import Claim, claim
from harness.records.store import Store
from harness.sweeps.worker import Lost, Worker

RUNNING = "running"  # by somebody else


def supervise(point: dict, worker: Worker) -> str:
    """Run one point in a child of `worker`.

    Args:
        point: what `config.plain_config` gives.

    Returns:
        the status of its record, or `running` if another process is at it.
    """
    config = from_plain(point)
    store, key = Store(config.paths.results), run_key(config)
    if finished(store, key, config):
        return store.record(key)["status"]
    mine = claim(store.open(key))
    if mine is None:
        return RUNNING
    with mine:
        if finished(store, key, config):  # since we looked
            return store.record(key)["status"]
        _in_child(config, point, mine, store, worker)
        return store.record(key)["status"]


def _in_child(config: RunConfig, point: dict, mine: Claim, store: Store, worker: Worker) -> None:
    directory, before = mine.path.parents[1], killed_for_memory()
    seconds = config.time_limit and 60 * config.time_limit
    try:
        code = worker.run({"point": point, "attempt": mine.number}, directory / layout.LOG, seconds)
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
    record = store.record(directory.name)
    if record is None or record.get("attempt") != mine.number:
        record = describe(config, directory.name) | {"attempt": mine.number} | ending
        store.commit(directory.name, record, {}, {}, yaml.safe_dump(plain(semantic(config))))
