"""Children that run points: what is told of their end, where their output goes, and that they never outlive
who asked for them.
"""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from harness.sweeps.worker import Lost, Stopped, Worker, gpus
from tests.helpers.dying_sweeps import eventually, lives

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="looks into /proc, and elsewhere no kernel ends orphans"
)

ROOT = Path(__file__).parents[2]
WORK = """
    import ctypes, json, os, signal, sys, time

    def work(job):
        print("at work", os.getpid(), flush=True)
        return eval(job["do"])
"""


@pytest.fixture(autouse=True)
def light(tmp_path, monkeypatch):
    """A package `harness` in which a child has nothing to import, and does what its job says."""
    package = tmp_path / "light" / "harness"
    package.mkdir(parents=True)
    (package / "sweeps").mkdir()
    for name in ("__init__", "sweeps/__init__", "libraries"):
        (package / f"{name}.py").touch()
    sweeps = ROOT / "harness" / "sweeps"
    shutil.copy(sweeps / "worker.py", package / "sweeps")
    begin = 'if __name__ == "__main__":'
    server = (sweeps / "server.py").read_text().replace(begin, textwrap.dedent(WORK) + begin)
    (package / "sweeps" / "server.py").write_text(server)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.chdir(package.parent)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log.txt"


def child(log) -> int:
    """The pid that a child has written into its log."""
    return int(eventually(lambda: log.exists() and log.read_text().split())[-1])


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


ENDS = {
    "0": 0,
    "7": 7,
    "1 / 0": 3,
    "os._exit(5)": 5,
    "os.kill(os.getpid(), signal.SIGKILL)": -signal.SIGKILL,
    "os.abort()": -signal.SIGABRT,
    "ctypes.string_at(0)": -signal.SIGSEGV,
}


def test_every_end_is_told_and_the_next_child_knows_nothing_of_it(log):
    with Worker() as worker:
        for do, code in ENDS.items():
            assert worker.run({"do": do}, log, None) == code, do
        assert worker.run({"do": "0"}, log, None) == 0
    assert log.read_text().count("at work") == len(ENDS) + 1
    assert "ZeroDivisionError" in log.read_text()


def test_output_goes_to_the_log_alone(log, capfd):
    do = """print("a word") or print("an error", file=sys.stderr) or os.system("echo from below") or sys.stdin.read() and 9"""  # noqa: E501
    with Worker() as worker:
        assert worker.run({"do": f"({do}) or 0"}, log, None) == 0
    assert {"a word", "an error", "from below"} <= set(log.read_text().splitlines())
    assert capfd.readouterr() == ("", "")


def test_the_limit_ends_the_child_and_what_it_started(log):
    with Worker() as worker:
        start = time.monotonic()
        do = "os.system('sleep 60 & echo $! & wait')"
        assert worker.run({"do": do}, log, 2) is None
        assert 2 <= time.monotonic() - start < 30
        pids = [int(word) for word in log.read_text().split() if word.isdigit()]
        assert len(pids) == 2
        eventually(lambda: not any(map(lives, pids)))
        assert worker.run({"do": "4"}, log, 20) == 4, "the server goes on"


def test_a_server_that_is_killed_takes_its_child_along(log):
    with Worker() as worker:
        threading.Thread(target=lambda: child(log) and os.kill(worker._server.pid, signal.SIGKILL)).start()
        with pytest.raises(Lost):
            worker.run({"do": "time.sleep(60)"}, log, None)
        eventually(lambda: not lives(child(log)), 20)
        assert worker.run({"do": "4"}, log, None) == 4, "another server is started"


def test_stop_from_another_thread(log):
    worker = Worker()
    threading.Thread(target=lambda: child(log) and worker.stop()).start()
    with pytest.raises(Stopped):
        worker.run({"do": "time.sleep(60)"}, log, None)
    eventually(lambda: not lives(child(log)), 20)
    with pytest.raises(Stopped):
        worker.run({"do": "0"}, log, None)


def test_an_interrupt_while_waiting_ends_the_child(log):
    # tests that run in the background would not hear it
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt():
        child(log)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with Worker() as worker, pytest.raises(KeyboardInterrupt):
        worker.run({"do": "time.sleep(60)"}, log, None)
    eventually(lambda: not lives(child(log)), 20)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_nothing_outlives_the_process_that_asked(how, log):
    script = "import sys; from harness.sweeps.worker import Worker; Worker().run({'do': 'time.sleep(60)'}, sys.argv[1], None)"  # noqa: E501
    asking = subprocess.Popen([sys.executable, "-c", script, str(log)])
    pid = child(log)
    server = parent(pid)
    assert lives(server) and lives(pid)
    asking.send_signal(how)
    asking.wait()
    eventually(lambda: not (lives(server) or lives(pid)), 20)


def test_the_environment_is_set_before_a_child_imports_anything(log):
    do = "print(os.environ['CUDA_VISIBLE_DEVICES'], 'harness.libraries' in sys.modules) or 0"
    with Worker({"CUDA_VISIBLE_DEVICES": "GPU-b"}) as worker:
        assert worker.run({"do": do}, log, None) == 0
    with Worker({"CUDA_VISIBLE_DEVICES": "GPU-a"}, ["harness.libraries"]) as worker:
        assert worker.run({"do": do}, log, None) == 0
    told = [line for line in log.read_text().splitlines() if line.startswith("GPU-")]
    assert told == ["GPU-b False", "GPU-a True"]


def test_a_server_without_preload_has_no_torch(monkeypatch):
    monkeypatch.delenv("PYTHONPATH")
    script = "import sys, harness.sweeps.server; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True).stdout
        == "False\n"
    )


def test_gpus_are_what_the_driver_lists_unless_the_environment_chooses(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == []
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho GPU-a\necho GPU-b\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert gpus() == ["GPU-a", "GPU-b"]
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n")
    assert gpus() == []
    for value, expected in {
        "": [],
        "-1": [],
        "NoDevFiles": [],
        "1": ["1"],
        "0,GPU-b": ["0", "GPU-b"],
    }.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert gpus() == expected, value
