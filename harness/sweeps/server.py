"""The process that forks a child for every point; `worker.py` is its other end."""

import faulthandler
import json
import os
import select
import signal
import sys
from importlib import import_module

from harness.sweeps.worker import POLL, kill


def work(job: dict) -> int:
    """What a child does: its exit code says nothing, the record does."""
    from harness.bookkeeping.point import Point
    from harness.run import run_claimed

    run_claimed(Point.of_plain(job["point"]), job["attempt"])
    return 0


def serve() -> None:
    """The server: a child per line of stdin, until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is for the process that started us
    for module in sys.argv[1:]:
        import_module(module)
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
            kill(pid)
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
            kill(pid)
            os._exit(0)


def _die_with(server: int) -> None:
    """Ask the kernel to kill us when the server is killed; only Linux can, elsewhere the point runs on to its
    end.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != server:  # it died before we asked
            os._exit(1)


if __name__ == "__main__":
    serve()
