"""A point in a process of its own, and the record of one that died without leaving any.

The process that supervises claims the run, so that the claim outlives whatever happens to the child.
"""

import json
import signal
from pathlib import Path

import yaml

from harness.config.run_config import RunConfig, from_plain
from harness.foundation.redaction import scrub_file
from harness.foundation.resources import killed_for_memory
from harness.keys import plain, run_key, semantic
from harness.records.attempts import Claim, claim
from harness.records.store import Store, describe
from harness.worker import Lost, Worker

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
    if store.finished(key, config.save):
        return store.record(key)["status"]
    mine = claim(store.open(key))
    if mine is None:
        return RUNNING
    with mine:
        if store.finished(key, config.save):  # since we looked
            return store.record(key)["status"]
        _in_child(config, point, mine, store, worker)
        return store.record(key)["status"]


def _in_child(config: RunConfig, point: dict, mine: Claim, store: Store, worker: Worker) -> None:
    directory, before = mine.path.parents[1], killed_for_memory()
    seconds = config.time_limit and 60 * config.time_limit
    try:
        code = worker.run({"point": point, "attempt": mine.number}, directory / "log.txt", seconds)
        where = _where(directory, mine.number)
        ending = _stopped(config, where) if code is None else _died(code, where, directory, killed_for_memory() > before)
    except Lost as error:
        ending = {"status": "failed", "reason": f"{error} {_where(directory, mine.number)}; retry=true goes on from there"}
    scrub_file(directory / "log.txt")  # whatever libraries printed went there as it was
    record = store.record(directory.name)
    if record is None or record.get("attempt") != mine.number:
        record = describe(config, directory.name) | {"attempt": mine.number} | ending
        store.commit(directory.name, record, {}, {}, yaml.safe_dump(plain(semantic(config))))


def work(job: dict) -> int:
    """What a child does: its exit code says nothing, the record does."""
    from harness.run import run_claimed

    run_claimed(from_plain(job["point"]), job["attempt"])
    return 0


def _stopped(config: RunConfig, where: str) -> dict:
    limit = f"stopped after {config.time_limit:g} minutes (time_limit) {where}"
    return {"status": "failed", "reason": f"{limit}; retry=true goes on from there, with a higher limit if it needs one"}


def _died(code: int, where: str, directory: Path, for_memory: bool) -> dict:
    if code < 0:
        name = signal.Signals(-code).name
        likely = ", which the kernel sends when memory runs out" if code == -signal.SIGKILL else ""
        reason = f"killed by {name} (signal {-code}{likely}) {where}"
    else:
        reason = f"ended with exit code {code} {where}"
    knob = "try a smaller data.batch_size or eval.batch_size" if for_memory else f"see {directory / 'log.txt'}"
    return {"status": "oom" if for_memory else "failed", "reason": f"{reason}; {knob}; retry=true goes on from there"}


def _where(directory: Path, attempt: int) -> str:
    """The last that the child told of its progress."""
    try:
        told = json.loads((directory / "progress.json").read_text())
        if told["attempt"] == attempt:
            return f"during {told['stage']} {told['done']}/{told['total']}"
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return "before it did anything"
