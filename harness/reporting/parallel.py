"""Parts of a report made at once, each by a process of its own: they need nothing of one another, and one
core is slow.
"""

import gc
import multiprocessing
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from traceback import format_exception
from typing import Any

from threadpoolctl import threadpool_limits

Work = Callable[[], Any]


def at_once(works: Sequence[Work]) -> list[Any]:
    """What each of the works returns.

    All but the last run in children that are forked, so that nothing has to be sent to them; what they return
    is pickled. The last one runs here: the place of a library that has threads of its own, for a fork loses
    them. Where forking is not safe (beside threads of Python, or not on Linux), one runs after the other.

    Raises:
        Exception: what the first of the works raised, in their order.
        RuntimeError: a child was killed.
    """
    if not sys.platform.startswith("linux") or threading.active_count() > 1:
        return [work() for work in works]
    *beside, here = works
    children: list[_Child] = []
    gc.freeze()  # or the first collection in each child would copy all memory that it shares with us
    try:
        with threadpool_limits(1):  # there are more processes than cores already
            children += [_Child(work) for work in beside]
            own = _outcome(here)
        outcomes = [*(child.outcome() for child in children), own]
    finally:
        gc.unfreeze()
        for child in children:
            child.end()
    for found in outcomes:
        if isinstance(found, _Raised):
            raise found.error
    return outcomes


class _Raised:
    def __init__(self, error: Exception):
        self.error = error


class _Child:
    def __init__(self, work: Work):
        context = multiprocessing.get_context("fork")
        self._answers, answer = context.Pipe(duplex=False)
        self._process = context.Process(target=_answer, args=(answer, work), daemon=True)
        self._process.start()
        answer.close()  # the child's end: with it closed here, the end of the child is the end of the pipe

    def outcome(self) -> Any:
        try:
            return self._answers.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            why = f"a process that made a part of the report ended with {code}; was there too little memory?"
            return _Raised(RuntimeError(why))

    def end(self) -> None:
        self._answers.close()
        self._process.kill()
        self._process.join()


def _answer(answer: Connection, work: Work) -> None:
    try:
        found = _outcome(work)
        if isinstance(found, _Raised):
            found.error.add_note("".join(format_exception(found.error)))  # a traceback cannot be sent
        answer.send(found)
    except BrokenPipeError:  # nobody waits any more
        pass


def _outcome(work: Work) -> Any:
    try:
        return work()
    except Exception as error:
        return _Raised(error)
