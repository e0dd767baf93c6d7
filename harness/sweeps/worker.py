"""Processes for points: one small server per slot, which forks a child for every point.

The server has imported the libraries and done nothing with them, so a child starts at once and dies alone.
Where a GPU is handed out the server imports nothing: its environment then says which GPU is visible before
torch is imported in the child.

    stdin  of the server: one JSON line per point
    stdout: {"pid": ...}, then {"returncode": ...} as subprocess has it
    the child's output goes to the log of its run
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

POLL = 0.02  # seconds between looks at a child


class Lost(Exception):
    """The server is gone, and its child with it."""


class Stopped(Exception):
    """The server was stopped by `Worker.stop`."""


class Worker:
    """A server and the pipe to it; started at the first point, and again when it was lost. A context: killed
    at its end.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, preload: Sequence[str] = ()):
        """
        Args:
            environment: variables set for its children, e.g. CUDA_VISIBLE_DEVICES.
            preload: modules that the server imports once for all its children; none where they need another
                environment than it.
        """
        self._environment, self._preload = dict(environment or {}), list(preload)
        self._server: subprocess.Popen | None = None
        self._stopped = False

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def run(self, job: dict, output: os.PathLike, seconds: float | None) -> int | None:
        """Let a child run `harness.sweeps.server.work(job)`.

        Args:
            output: file that what it prints is appended to.
            seconds: time limit.

        Returns:
            its exit code, negative for a signal; None if it was stopped at the limit.

        Raises:
            Lost: the server died.
            Stopped: another thread called `stop`.
        """
        try:
            server = self._running()
            server.stdin.write(json.dumps({"job": job, "output": os.fspath(output)}).encode() + b"\n")
            pid = _answer(server, None)["pid"]
            try:
                return _answer(server, seconds)["returncode"]
            except TimeoutError:
                kill(pid)
                _answer(server, None)
                return None
            except BaseException:  # ^C here: the child has a session of its own and would not hear of it
                kill(pid)
                raise
        except (OSError, EOFError, ValueError) as error:  # of a pipe that was closed at either end
            if self._stopped:
                raise Stopped from error
            self.close()
            raise Lost("the process that starts points was killed") from error

    def stop(self) -> None:
        """End the server and the child at work, from another thread; no further point is run."""
        self._stopped = True
        self.close()

    def close(self) -> None:
        """End the server; a child that still runs is killed."""
        if self._server is not None:
            with suppress(OSError):
                self._server.stdin.close()
            try:
                self._server.wait(10)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
            self._server.stdout.close()
            self._server = None

    def _running(self) -> subprocess.Popen:
        if self._stopped:
            raise Stopped
        if self._server is None or self._server.poll() is not None:
            command = [sys.executable, "-m", "harness.sweeps.server", *self._preload]
            # a buffer would hide from select what it holds
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
            self._server = subprocess.Popen(
                command, env=os.environ | self._environment, start_new_session=True, **pipes
            )
        return self._server


def _answer(server: subprocess.Popen, seconds: float | None) -> dict:
    ready, _, _ = select.select([server.stdout], [], [], seconds)
    if not ready:
        raise TimeoutError
    line = server.stdout.readline()
    if not line:
        raise EOFError
    return json.loads(line)


def kill(pid: int) -> None:
    """A child and all that it started."""
    for send in (os.killpg, os.kill):  # it may not have its session yet
        with suppress(ProcessLookupError, PermissionError):
            send(pid, signal.SIGKILL)


def gpus() -> list[str]:
    """The GPUs that may be handed out, as CUDA_VISIBLE_DEVICES names them; without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name not in ("", "-1", "NoDevFiles")]
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()
    return []
