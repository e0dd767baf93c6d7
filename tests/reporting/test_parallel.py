"""`at_once`: works in forked processes give what they give one after the other."""

import multiprocessing
import os
import signal
import threading

import pytest

from harness.foundation.errors import UserError
from harness.reporting import parallel
from harness.reporting.parallel import at_once


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """As in a process without threads; a worker of pytest-xdist has some."""
    monkeypatch.setattr(parallel.threading, "active_count", lambda: 1)


def test_results_come_in_order_from_processes_of_their_own():
    large = bytes(range(256)) * 4096  # more than a pipe holds
    works = [lambda: (os.getpid(), large), lambda: (os.getpid(), 2), lambda: (os.getpid(), 3)]
    (first, one), (second, two), (last, three) = at_once(works)
    assert (one, two, three) == (large, 2, 3)
    assert len({first, second, last}) == 3 and last == os.getpid()


def test_beside_threads_nothing_is_forked(monkeypatch):
    """A lock that a thread holds during a fork is never opened again in the child."""
    monkeypatch.undo()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert at_once([os.getpid, os.getpid]) == [os.getpid()] * 2
    finally:
        stop.set()
        thread.join()


def test_elsewhere_than_on_linux_nothing_is_forked(monkeypatch):
    monkeypatch.setattr(parallel.sys, "platform", "darwin")
    assert at_once([os.getpid, os.getpid]) == [os.getpid()] * 2


def test_the_first_error_in_order_is_raised_with_its_place():
    def fails():
        raise UserError("no room; take another place")

    with pytest.raises(UserError, match="no room; take another place") as caught:
        at_once([lambda: 1, fails, lambda: 1 / 0])
    assert "in fails" in "".join(caught.value.__notes__)
    with pytest.raises(ZeroDivisionError):
        at_once([lambda: 1, lambda: 1 / 0])


def test_works_may_start_works():
    assert at_once([lambda: 1, lambda: at_once([lambda: 2, lambda: 3])]) == [1, [2, 3]]


def test_a_killed_process_is_an_error_that_says_so():
    with pytest.raises(RuntimeError, match="ended with -9; was there too little memory"):
        at_once([lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: 1])


def test_an_error_here_leaves_no_process_behind():
    with pytest.raises(KeyboardInterrupt):
        at_once([lambda: threading.Event().wait(), _interrupt])
    assert multiprocessing.active_children() == []


def _interrupt():
    raise KeyboardInterrupt
