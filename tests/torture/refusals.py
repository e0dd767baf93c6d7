"""Let the disk refuse a step by which a sweep changes files, see that it says so in one line and breaks
nothing, and run it again.

    python -m tests.torture.refusals PLACE SHARE SEED      prints {"steps", "cases", "survived", "seconds", "wrong": [...]}

The point runs in the process of the sweep (`run`), or in one of its own that is spared, so that only the
sweep meets the fault (`driver`).
"""  # noqa: E501

import errno
import json
import random
import shutil
import sys
import time
from itertools import product
from pathlib import Path

import pandas as pd

from harness.checkpoints.checkpoint import is_intact
from harness.cli import main as ptq_bench
from harness.foundation.errors import UserError
from harness.records.store import Store
from harness.sweeps.server import work
from harness.sweeps.worker import Worker
from tests.torture.faults import Faults, refuse
from tests.torture.runs import FRESH, POINT, differences, forked, prepare

CODES = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ESTALE)
STEPS = 200  # so many of the first are tried
CONVENIENT = ("progress.json", "log.txt")  # nothing depends on these files


def main(place: Path, share: float, seed: int) -> dict:
    """Try a share of all (who, step, errno), chosen by the seed."""
    prepare(place)
    command = ["run", *POINT, "paths.results=refused", "retry=true"]
    forms = {"run": [*command, "isolate=false"], "driver": [*command, "isolate=true"]}
    steps = {who: steps_of(place, form) for who, form in forms.items()}
    cases = [(who, at, code) for who in forms for at, code in product(range(len(steps[who][:STEPS])), CODES)]
    chosen = random.Random(seed).sample(cases, max(1, round(share * len(cases))))
    start, survived, wrong = time.monotonic(), 0, []
    for who, at, code in chosen:
        ended, found = refused(place, forms[who], steps[who][at], at, code)
        survived += ended == 0
        wrong += [
            f"{errno.errorcode[code]} at {who}'s {steps[who][at]} ({at}): {difference}"
            for difference in found
        ]
    counts = {who: len(found) for who, found in steps.items()}
    return {
        "steps": counts,
        "cases": len(chosen),
        "survived": survived,
        "seconds": round(time.monotonic() - start, 1),
        "wrong": wrong,
    }


def sweep(place: Path, form: list[str], at: int | None = None, code: int = 0) -> int:
    """`ptq-bench run`, whose step `at` meets a fault, and whose exit code is returned."""
    faults = Faults(place / "refused", at, refuse(code))

    def run(self, job, output, seconds) -> int:
        def spared() -> None:
            faults.__exit__()
            work(job)

        return forked(spared)

    Worker.run = run
    with faults:
        ended = ptq_bench(form)
    Path("steps.json").write_text(json.dumps(faults.steps))
    return ended


def steps_of(place: Path, form: list[str]) -> list[str]:
    shutil.rmtree("refused", ignore_errors=True)
    shutil.copytree(FRESH, "refused")
    assert forked(lambda: sweep(place, form), "output") == 0, Path("output").read_text()
    return json.loads(Path("steps.json").read_text())


def refused(place: Path, form: list[str], step: str, at: int, code: int) -> tuple[int, list[str]]:
    """The exit code, and what is wrong with how the sweep ended or with the same command afterwards."""
    shutil.rmtree("refused", ignore_errors=True)
    shutil.copytree(FRESH, "refused")
    ended = forked(lambda: sweep(place, form, at, code), "output")
    told = Path("output").read_text()
    wrong = []
    if ended not in (0, 1, 2, 3) or "Traceback" in told or "Logging error" in told:
        wrong.append(f"ended with {ended}: {told[-600:]}")
    if ended and not any(line.startswith("ptq-bench: ") for line in told.splitlines()):
        wrong.append(f"said nothing: {told[-300:]}")
    if ended and step.startswith("write") and any(name in step for name in CONVENIENT):
        wrong.append(f"a convenience failed the run: {told[-300:]}")
    wrong += broken(Path("refused"))
    again = forked(lambda: sweep(place, form), "output")
    return ended, wrong + (
        differences("refused")
        if again == 0
        else [f"then ended with {again}: {Path('output').read_text()[-600:]}"]
    )


def broken(results: Path) -> list[str]:
    """Files that are there under their final names and cannot be read."""
    found = []
    for directory in (results / "runs").iterdir():
        try:
            Store(results).record(directory.name)
            for path in directory.glob("*.parquet"):
                pd.read_parquet(path)
        except (UserError, OSError, ValueError) as error:
            found.append(f"broken: {error}")
        if (directory / "checkpoint").exists() and not is_intact(directory / "checkpoint"):
            found.append(f"broken: {directory / 'checkpoint'}")
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]).resolve(), float(sys.argv[2]), int(sys.argv[3]))))
