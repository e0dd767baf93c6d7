"""Processes for points: one small server per slot, which forks a child for every point.

The server has imported the libraries and done nothing with them, so a child starts at once and dies alone. Where a GPU is
handed out the server imports nothing: its environment then says which GPU is visible before torch is imported in the child.

    stdin  of the server: one JSON line per point      stdout: {"pid": ...}, then {"returncode": ...} as subprocess has it
    the child's output goes to the log of its run
"""

import faulthandler
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress

POLL = 0.02  # seconds between looks at a child


class Lost(Exception):
    """The server is gone, and its child with it."""


class Stopped(Exception):
    """The server was stopped by `Worker.stop`."""


class Worker:
    """A server and the pipe to it; started at the first point, and again when it was lost. A context: killed at its end."""

    def __init__(self, environment: Mapping[str, str] | None = None, preload: bool = True):
        """
        Args:
            environment: variables set for its children, e.g. CUDA_VISIBLE_DEVICES.
            preload: import the libraries once, in the server; false where children need another environment than it.
        """
        self._environment, self._preload = dict(environment or {}), preload
        self._server: subprocess.Popen | None = None
        self._stopped = False

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def run(self, job: dict, output: os.PathLike, seconds: float | None) -> int | None:
        """Let a child run `harness.supervise.work(job)`.

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
                _kill(pid)
                _answer(server, None)
                return None
            except BaseException:  # ^C here: the child has a session of its own and would not hear of it
                _kill(pid)
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
            command = [sys.executable, "-m", "harness.worker", *(["--preload"] if self._preload else [])]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}  # a buffer would hide from select what it holds
            self._server = subprocess.Popen(command, env=os.environ | self._environment, start_new_session=True, **pipes)
        return self._server


def _answer(server: subprocess.Popen, seconds: float | None) -> dict:
    ready, _, _ = select.select([server.stdout], [], [], seconds)
    if not ready:
        raise TimeoutError
    line = server.stdout.readline()
    if not line:
        raise EOFError
    return json.loads(line)


def serve() -> None:
    """The server: a child per line of stdin, until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is for the process that started us
    if "--preload" in sys.argv:
        import harness.evaluation.language_model
        import harness.evaluation.tasks  # noqa: F401  with lm-eval and transformers, what every point needs
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever prints must not end up among the answers
    while line := sys.stdin.readline():
        order = json.loads(line)
        server, pid = os.getpid(), os.fork()
        if pid == 0:
            _child(order, server)
        try:
            print(json.dumps({"pid": pid}), file=answers)
        except BrokenPipeError:  # whoever gave the order has died, and nobody holds the claim any more
            _kill(pid)
            os._exit(0)
        code = _wait(pid)
        try:
            print(json.dumps({"returncode": code}), file=answers)
        except BrokenPipeError:
            os._exit(0)


def _child(order: dict, server: int) -> None:
    """Run the point and end, whatever happens, without the server's cleanup."""
    os.setsid()
    _die_with(server)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 3
    try:
        log = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        print(f"ptq-bench: {error}", file=sys.stderr, flush=True)
        os._exit(code)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    faulthandler.enable()  # whatever kills it by a signal that can be caught leaves its place in the log
    try:
        from harness.supervise import work

        code = work(order["job"])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # threads of trackers may hang


def _wait(pid: int) -> int:
    """The exit code of a child. Ends us, and it, when nobody reads the answer any more."""
    gone = select.poll()
    gone.register(0, select.POLLIN)
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if gone.poll(1000 * POLL):  # no order comes before the answer, so this is the end of the pipe
            _kill(pid)
            os._exit(0)


def _kill(pid: int) -> None:
    """A child and all that it started."""
    for kill in (os.killpg, os.kill):  # it may not have its session yet
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _die_with(server: int) -> None:
    """Ask the kernel to kill us when the server is killed; only Linux can, elsewhere the point runs on to its end."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != server:  # it died before we asked
            os._exit(1)


def gpus() -> list[str]:
    """The GPUs that may be handed out, as CUDA_VISIBLE_DEVICES names them; without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name not in ("", "-1", "NoDevFiles")]
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()
    return []


if __name__ == "__main__":
    serve()
