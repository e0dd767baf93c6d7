"""A solver that ends its process in the middle of a run, in every way a process can end; otherwise it rounds to nearest."""

import ctypes
import os
import signal
import sys
import time
from dataclasses import dataclass

from methods.core.problem import LayerProblem, Solution
from methods.rtn import RTN

solved = 0  # layers, in this process


def fail():
    raise RuntimeError("no luck")


WAYS = {
    "never": lambda: None,
    "raise": fail,
    "memory": lambda: bytearray(1 << 62),
    "exit": lambda: sys.exit(5),
    "leave": lambda: os._exit(5),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
    "hang": lambda: time.sleep(3600),
}


@dataclass(frozen=True)
class Death(RTN):
    """
    Args:
        way: how the process ends, a key of `WAYS`.
        after: layers that are still solved.
        seconds: that every layer takes.
    """

    way: str
    after: int
    seconds: float

    def solve(self, problem: LayerProblem) -> Solution:
        global solved
        print("layer", os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", ""), time.time(), flush=True)
        if solved == self.after:
            WAYS[self.way]()
        solved += 1
        time.sleep(self.seconds)
        return super().solve(problem)
