"""Many processes that write records and are killed at random: what they were told is written must be there,
once and whole.

    python -m tests.torture.writers PLACE WRITERS RECORDS KILLS SEED      prints what is counted and how long a commit takes

Every record is claimed by two writers, so that they also race. Locks are switched off, and nobody may ask for
one.
"""  # noqa: E501

import fcntl
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from statistics import quantiles

from harness.records.attempts import claim
from harness.records.store import Store

FILLER = "x" * 2000  # a record of a real run has as many bytes


def main(place: Path, writers: int, each: int, kills: int, seed: int) -> dict:
    """Write `writers` times `each` records, killing a writer `kills` times on the way."""
    chance, alive, start = random.Random(seed), {}, time.monotonic()
    keys = [[f"{writer:04x}{number:012x}" for number in range(each)] for writer in range(writers)]
    for writer in range(writers):
        alive[_start(place, keys, writer)] = writer
    killed, wrong = 0, []
    while alive:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            writer, code = alive.pop(pid), os.waitstatus_to_exitcode(status)
            if code == -signal.SIGKILL:
                alive[_start(place, keys, writer)] = writer
            elif code:
                wrong.append(f"writer {writer} ended with {code}")
        elif killed < kills and _acknowledged(place) > killed * writers * each / (kills + 1):
            os.kill(chance.choice(list(alive)), signal.SIGKILL)
            killed += 1
        else:
            time.sleep(0.002)
    return counted(place, [key for share in keys for key in share], wrong) | {
        "killed": killed, "seconds": round(time.monotonic() - start, 1)
    }  # fmt: skip


def _start(place: Path, keys: list[list[str]], writer: int) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            write(place, keys[writer] + keys[(writer + 1) % len(keys)][::-1])
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def write(place: Path, keys: list[str]) -> None:
    """Write the records that nobody has written or writes."""
    locks = []
    fcntl.flock = fcntl.lockf = lambda *arguments: locks.append(arguments)
    store = Store(place / "results")
    acknowledgements = os.open(place / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for key in keys:
        if store.finished(key, save=False) or not (mine := claim(store.open(key))):
            continue
        with mine:
            if store.finished(key, save=False):
                continue
            record = {
                "run_key": key,
                "status": "done",
                "reason": None,
                "attempt": mine.number,
                "writer": os.getpid(),
                "filler": FILLER,
            }
            before = time.perf_counter()
            store.commit(key, record, {}, {}, "")
            took = time.perf_counter() - before
            os.write(acknowledgements, f"{key} {os.getpid()} {took:.6f} {len(locks)}\n".encode())


def _acknowledged(place: Path) -> float:
    path = place / "acknowledged"
    # a line has a few bytes more, so the last kill comes before the end
    return path.stat().st_size / 30 if path.exists() else 0


def counted(place: Path, keys: list[str], wrong: list[str]) -> dict:
    """What became of the records."""
    store, told = (
        Store(place / "results"),
        [line.split() for line in (place / "acknowledged").read_text().splitlines()],
    )
    author = {key: int(pid) for key, pid, *_ in told}
    lost = [key for key in author if (store.record(key) or {}).get("writer") != author[key]]
    missing = [key for key in keys if store.record(key) is None]
    torn = [key for key in keys if key not in missing and store.record(key)["filler"] != FILLER]
    percentiles = quantiles([float(took) for _, _, took, _ in told], n=100)
    return {
        "records": len(keys),
        "acknowledged": len(told),
        "duplicate": len(told) - len(author),
        "lost": len(lost),
        "missing": len(missing),
        "torn": len(torn),
        "locks": max(int(locks) for *_, locks in told),
        "p50_ms": round(1000 * percentiles[49], 1),
        "p99_ms": round(1000 * percentiles[98], 1),
        "wrong": wrong,
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
