"""Faults at the steps by which a process changes files: it dies before one of them or in its middle, or the
disk refuses it.

Python's functions that change files are replaced for as long as a `Faults` is entered, by ones that number
every change below a directory, and do a deed at one of them. What native code writes (safetensors) counts as
one step.
"""

import builtins
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

# the step is not done · half of its bytes are written · what was not synced is lost too
BEFORE, TORN, POWER = "before", "torn", "power"
# of os; which argument is the new name
CALLS = {"replace": 1, "rename": 1, "link": 1, "unlink": 0, "remove": 0, "rmdir": 0, "mkdir": 0}


class Faults:
    """A context in which file changes below `root` are numbered, and number `at` (from 0) meets a fate.

    Attributes:
        steps: what was done so far, e.g. `replace runs/5f/record.json`.
    """

    def __init__(
        self,
        root: Path,
        at: int | None = None,
        deed: Callable[[Path], None] | None = None,
        way: str = BEFORE,
        ignored: tuple[str, ...] = (),
    ):
        """
        Args:
            deed: called with the path at step `at`; it kills or raises.
            ignored: names of files whose changes do not count.
        """
        self.root, self.steps = Path(root), []
        self._at, self._deed, self._way, self._ignored = at, deed, way, ignored
        self._unsynced: set[Path] = set()
        self._real: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> "Faults":
        for name, place in CALLS.items():
            self._put(os, name, self._call(getattr(os, name), place))
        self._put(os, "fsync", self._fsync)
        opened = self._opened(builtins.open)
        self._put(builtins, "open", opened)
        self._put(io, "open", opened)
        self._put(safetensors.torch, "serialize_file", self._serialized(safetensors.torch.serialize_file))
        return self

    def __exit__(self, *exception) -> None:
        for module, name, real in self._real:
            setattr(module, name, real)
        self._real.clear()

    def _put(self, module: Any, name: str, fake: Callable) -> None:
        self._real.append((module, name, getattr(module, name)))
        setattr(module, name, fake)

    def _step(
        self, kind: str, path: Path, change: Callable[[], Any], half: Callable[[], Any] | None = None
    ) -> Any:
        if not path.is_relative_to(self.root) or any(name in path.name for name in self._ignored):
            return change()
        self.steps.append(f"{kind} {path.relative_to(self.root)}")
        if len(self.steps) - 1 == self._at:
            if self._way == TORN and half:
                half()
            if self._way == POWER:
                self._cut_power()
            self._deed(path)
        return change()

    def _call(self, real: Callable, place: int) -> Callable:
        def call(*arguments, **options):
            path = _absolute(arguments[place], options.get("dir_fd"))

            def change():
                result = real(*arguments, **options)
                if real.__name__ in ("replace", "rename"):
                    self._moved(_absolute(arguments[0]), path)
                elif real.__name__ in ("unlink", "remove"):
                    self._unsynced.discard(path)
                return result

            return self._step(real.__name__, path, change)

        return call

    def _fsync(self, descriptor: int) -> None:
        """Syncing itself is left out: only a cut of power would show the difference, and that is played."""
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        self._step("fsync", path, lambda: self._unsynced.discard(path))

    def _opened(self, real: Callable) -> Callable:
        def opened(file, mode="r", *arguments, **options):
            if isinstance(file, int) or not set(mode) & set("wax+"):
                return real(file, mode, *arguments, **options)
            path = _absolute(file)
            stream = self._step("open", path, lambda: real(file, mode, *arguments, **options))
            write = stream.write

            def written(content):
                self._unsynced.add(path)
                return self._step(
                    "write",
                    path,
                    lambda: write(content),
                    lambda: (write(content[: len(content) // 2]), stream.flush()),
                )

            stream.write = written
            return stream

        return opened

    def _serialized(self, real: Callable) -> Callable:
        def serialized(tensors, filename, *arguments, **options):
            path = _absolute(filename)

            def change():
                self._unsynced.add(path)
                real(tensors, filename, *arguments, **options)

            return self._step("serialize", path, change, lambda: (change(), _halve(path)))

        return serialized

    def _moved(self, source: Path, target: Path) -> None:
        for path in [path for path in self._unsynced if path.is_relative_to(source)]:
            self._unsynced.remove(path)
            self._unsynced.add(target / path.relative_to(source))

    def _cut_power(self) -> None:
        for path in self._unsynced:
            if path.is_file():
                _halve(path)


def die(path: Path) -> None:
    """A deed: SIGKILL to this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(code: int) -> Callable[[Path], None]:
    """A deed: the disk refuses with an errno, in the way that the writer of the file would say it."""

    def deed(path: Path) -> None:
        if path.suffix == ".safetensors" or path.name.startswith(".aside-tensors"):
            raise SafetensorError(
                f"Error while serializing: I/O error: {os.strerror(code)} (os error {code})"
            )
        raise OSError(code, os.strerror(code), str(path))

    return deed


def _absolute(path: Any, directory: int | None = None) -> Path:
    base = Path.cwd() if directory is None else Path(os.readlink(f"/proc/self/fd/{directory}"))
    return base / os.fsdecode(path)


def _halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)
