"""Kill a run at the steps by which it changes files, let another attempt go on, and compare.

    python -m tests.torture.crash_points PLACE SHARE SEED      prints {"steps", "cases", "seconds", "wrong": [...]}

Right after a step is right before the next one, so one kill a step covers both, and the run's end is the
undisturbed run.
"""  # noqa: E501

import json
import random
import shutil
import signal
import sys
import time
from itertools import product
from pathlib import Path

from harness.bookkeeping.point import Point
from harness.run import run
from tests.torture.faults import BEFORE, POWER, TORN, Faults, die
from tests.torture.runs import FRESH, config, differences, forked, prepare

IGNORED = ("progress.json", "log.txt")  # nobody reads them to go on


def main(place: Path, share: float, seed: int) -> dict:
    """Try a share of all cases, chosen by the seed."""
    prepare(place)
    config(results="killed")
    steps = steps_of_a_run(place)
    cases = [
        (at, way)
        for at, way in product(range(len(steps)), (BEFORE, TORN, POWER))
        if way != TORN or _can_tear(steps[at])
    ]
    chosen = random.Random(seed).sample(cases, max(1, round(share * len(cases))))
    start, wrong = time.monotonic(), []
    for at, way in chosen:
        wrong += [f"{steps[at]} ({at}, {way}): {difference}" for difference in killed(place, at, way)]
    return {
        "steps": len(steps),
        "cases": len(chosen),
        "seconds": round(time.monotonic() - start, 1),
        "wrong": wrong,
    }


def steps_of_a_run(place: Path) -> list[str]:
    shutil.copytree(FRESH, "counted")

    def count() -> None:
        with Faults(place / "counted", ignored=IGNORED) as faults:
            run(Point.of(config(results="counted")))
        Path("steps.json").write_text(json.dumps(faults.steps))

    assert forked(count, "output") == 0, Path("output").read_text()
    return json.loads(Path("steps.json").read_text())


def _can_tear(step: str) -> bool:
    return step.startswith(("write", "serialize"))


def killed(place: Path, at: int, way: str) -> list[str]:
    """What is wrong after a kill and another attempt."""
    shutil.rmtree("killed", ignore_errors=True)
    shutil.copytree(FRESH, "killed")

    def disturbed() -> None:
        with Faults(place / "killed", at, die, way, IGNORED):
            run(Point.of(config(results="killed")))

    code = forked(disturbed, "output")
    if code != -signal.SIGKILL:
        return [f"was not killed but ended with {code}: {Path('output').read_text()[-500:]}"]
    code = forked(lambda: run(Point.of(config(results="killed"))) and 0, "output")
    return (
        differences("killed")
        if code == 0
        else [f"the next attempt ended with {code}: {Path('output').read_text()[-500:]}"]
    )


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]).resolve(), float(sys.argv[2]), int(sys.argv[3]))))
