"""Who works on a run: numbered attempts, so that two sweeps over the same points compute every point once.

    results/runs/<run_key>/attempts/0001.json  0002.json ...      {owner, ended}

An attempt is claimed by linking a file of the next number into place, which only one of several processes
can do. Why so, and not by a lock: a lock that its owner must remove outlives a killed owner, and taking
over a stale one is a race of its own: two find it stale, and the slower removes the claim of the faster.
Locks of the kernel do not reach over every shared file system. A number is taken once and for ever, so
nothing is ever taken over or removed: an attempt is over when its file says so or when its owner is dead,
and then the next number is free. Linking, unlike creating and then writing, shows the file with its content
or not at all, so that nobody reads an owner half written and believes the attempt over. And the record
tells by its number which attempt made it.

Owners on this machine are asked for directly (process number and start time); those elsewhere are believed
to live while they touch their file. Claims keep work from being done twice; that records are whole never
depends on them.
"""

import json
import os
import re
import socket
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from harness.foundation.errors import UserError
from harness.foundation.files import disk_errors, write_atomic
from harness.records import layout

HEARTBEAT = 15  # seconds between touches
# seconds after which an owner elsewhere counts as dead: shared file systems may show a touch a minute late
SILENCE = 180

_ours: set[Path] = set()  # claims of this very process that are not over


@dataclass(frozen=True)
class Owner:
    """A process, told apart from any that gets its number later."""

    host: str
    machine: str  # one boot of one machine, and the process namespace of a container in it
    pid: int
    started: str  # in clock ticks after boot


class Claim:
    """A claimed attempt. A context: the claim is over at its end."""

    def __init__(self, path: Path):
        self.path = path
        self._over = threading.Event()
        _ours.add(path)
        threading.Thread(target=self._beat, daemon=True).start()

    @property
    def number(self) -> int:
        """1 for the first attempt."""
        return int(self.path.stem)

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *exception) -> None:
        self.release()

    def release(self) -> None:
        """Let the next attempt be claimed."""
        self._over.set()
        _ours.discard(self.path)
        with suppress(OSError, UserError):  # then our death tells
            write_atomic(self.path, json.dumps({"owner": asdict(myself()), "ended": True}))

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT):
            with suppress(OSError):
                os.utime(self.path)


def claim(directory: Path) -> Claim | None:
    """Claim the next attempt at the run in `directory`; None while a living process works on it.

    Raises:
        UserError: the directory cannot be written.
    """
    attempts = directory / layout.ATTEMPTS
    last = _last(attempts)
    if last and _lives(last):
        return None
    path = attempts / f"{int(last.stem) + 1 if last else 1:04d}.json"
    aside = attempts / f".aside-{path.name}-{os.getpid()}-{threading.get_ident()}"
    with disk_errors(path):
        attempts.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_text(json.dumps({"owner": asdict(myself()), "ended": False}))
            os.link(aside, path)
        except (FileExistsError, FileNotFoundError):
            return None  # another was faster, and may have tidied ours away
        finally:
            aside.unlink(missing_ok=True)
    return Claim(path)


def holder(directory: Path) -> Owner | None:
    """The living process that works on the run in `directory`."""
    last = _last(directory / layout.ATTEMPTS)
    return _owner(last) if last and _lives(last) else None


def attempts(directory: Path) -> int:
    """How often the run in `directory` was begun."""
    last = _last(directory / layout.ATTEMPTS)
    return int(last.stem) if last else 0


@cache
def _myself(pid: int) -> Owner:
    return Owner(socket.gethostname(), _machine(), pid, _started(pid) or "")


def myself() -> Owner:
    """This process; asked anew after a fork."""
    return _myself(os.getpid())


def _last(attempts: Path) -> Path | None:
    try:
        names = [name for name in os.listdir(attempts) if re.fullmatch(r"\d+\.json", name)]
    except FileNotFoundError:
        return None
    return attempts / max(names, key=lambda name: int(name[:-5])) if names else None


def _owner(path: Path) -> Owner | None:
    """Whose attempt it is; None if it is over."""
    try:
        content = json.loads(path.read_text())
        return None if content["ended"] else Owner(**content["owner"])
    except (OSError, ValueError, TypeError, KeyError):
        return None  # damaged: nobody can be asked, and a second computation gives the same numbers


def _lives(path: Path) -> bool:
    owner = _owner(path)
    if owner is None:
        return False
    if owner == myself():
        return path in _ours
    if owner.machine == _machine():
        return bool(owner.started) and _started(owner.pid) == owner.started
    return _age(path) < SILENCE


def _age(path: Path) -> float:
    """Seconds since the file was touched, by the clock of its file system where we may write to it."""
    touched = path.stat().st_mtime
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".aside-") as now:
            return os.fstat(now.fileno()).st_mtime - touched
    except OSError:  # not ours to write to, or tidied away by whoever is at work
        return time.time() - touched


@cache
def _machine() -> str:
    """What makes process numbers comparable; off Linux the host's name must do."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process started; None if there is none, or if it is dead and only waits to be collected."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self").exists():
            return None
    try:  # off Linux only its existence can be asked
        os.kill(pid, 0)
        return "alive"
    except OSError:
        return None
