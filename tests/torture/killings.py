"""A sweep whose processes are killed at random: the driver, a server of its workers, a child at a point, or
all of them at once.
"""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

VICTIMS = ["child"] * 17 + ["server", "driver", "all"]  # of every 20 kills, in random order
STARTS = 400  # of the driver, before we give up
# seconds in which the processes of a dead driver must have gone; one that is importing torch ends after that
FAREWELL = 120


class Killing:
    """Starts a command again until it succeeds, and kills on the way."""

    def __init__(
        self,
        command: list[str],
        directory: Path,
        kills: int,
        pace: float,
        seed: int,
        look: Callable[[], None],
    ):
        """
        Args:
            kills: how often.
            pace: seconds until the next kill at most; well below what a point takes, or points finish before
                so many have come.
            look: called before every kill, and at the end.
        """
        self._command, self._directory, self._left, self._pace, self._look = (
            command,
            directory,
            kills,
            pace,
            look,
        )
        self._chance = random.Random(seed)
        self._victims: list[str] = []
        self.killed: Counter[str] = Counter()
        self.starts = 0

    def run(self) -> None:
        """Until the command exits with 0; raises AssertionError where it does not, or leaves processes
        behind.
        """
        while self.starts < STARTS:
            self.starts += 1
            with open(self._directory / "told", "a") as told:
                driver = subprocess.Popen(
                    self._command, cwd=self._directory, stderr=told, start_new_session=True
                )
            everyone = self._disturb(driver)
            code = driver.wait()
            self._gone(everyone)
            self._look()
            if code == 0:
                return
            assert code in (1, -signal.SIGKILL), (code, (self._directory / "told").read_text()[-2000:])
        raise AssertionError(f"not done after {STARTS} starts")

    def _disturb(self, driver: subprocess.Popen) -> set[int]:
        """Kill until the driver is dead or nothing is left to do; returns every process ever seen."""
        seen = set()
        while driver.poll() is None:
            servers = children(driver.pid)
            at_work = {pid for server in servers for pid in children(server)}
            seen |= servers | at_work
            if not at_work or not self._left:
                time.sleep(0.02)
                continue
            time.sleep(self._pace * self._chance.random() ** 2)
            self._victims = self._victims or self._chance.sample(VICTIMS, len(VICTIMS))
            victim = self._victims.pop()
            self._look()
            targets = {
                "child": at_work,
                "server": servers,
                "driver": {driver.pid},
                "all": {driver.pid, *servers, *at_work},
            }[victim]
            self._kill(targets if victim == "all" else {self._chance.choice(sorted(targets))})
            self.killed[victim] += 1
            self._left -= 1
        return seen

    def _kill(self, pids: set[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _gone(self, everyone: set[int]) -> None:
        end = time.monotonic() + FAREWELL
        while alive := {
            pid
            for pid in everyone
            if Path(f"/proc/{pid}/cmdline").exists() and b"harness.sweeps.server" in _command_of(pid)
        }:
            assert time.monotonic() < end, f"left behind: {alive}"
            time.sleep(0.05)


def children(pid: int) -> set[int]:
    """Process numbers of the children of all threads of a process."""
    found = set()
    for place in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found |= set(map(int, place.read_text().split()))
    return found


def _command_of(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
