"""Writes that fail leave what was there before, and say why in one line."""

import errno
import multiprocessing
import os
import subprocess
import sys
import textwrap
import time

import pytest
from safetensors import SafetensorError

from harness.foundation import files, hashes
from harness.foundation.errors import UserError

REFUSALS = {
    "ENOSPC": "disk full",
    "EDQUOT": "disk full",
    "EACCES": "cannot use",
    "EROFS": "cannot use",
    "ENOTDIR": "cannot use",
}


@pytest.mark.parametrize("content", ["grüße\n", b"\0\1"])
def test_writes_text_and_bytes(tmp_path, content):
    path = tmp_path / "deep" / "file"
    files.write_atomic(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusing_disk_leaves_the_old_file_and_one_line(tmp_path, monkeypatch, call, name):
    path = tmp_path / "file"
    files.write_atomic(path, "old")
    monkeypatch.setattr(os, call, _raises(OSError(getattr(errno, name), "refused")))
    with pytest.raises(UserError, match=REFUSALS[name]) as caught:
        files.write_atomic(path, "new")
    assert (
        "PTQ_BENCH_CACHE" in str(caught.value)
        and str(path) in str(caught.value)
        and "\n" not in str(caught.value)
    )
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_other_errors_and_interrupts_pass_and_leave_no_trace(tmp_path, monkeypatch):
    path = tmp_path / "file"
    for error in (OSError(errno.EIO, "broken"), KeyboardInterrupt()):
        monkeypatch.setattr(os, "fsync", _raises(error))
        with pytest.raises(type(error)):
            files.write_atomic(path, "new")
        assert os.listdir(tmp_path) == []


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    files.write_atomic(path, "old")
    script = f"""
        import os
        from harness.foundation import files
        os.replace = lambda *_: os._exit(9)
        files.write_atomic({str(path)!r}, "new")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)])
    assert done.returncode == 9 and path.read_text() == "old"
    leftover = [name for name in os.listdir(tmp_path) if name.startswith(files.ASIDE)]
    assert len(leftover) == 1
    files.remove_leftovers(tmp_path)
    assert leftover[0] in os.listdir(tmp_path)  # it may still be in work
    yesterday = time.time() - 2 * 86400
    os.utime(tmp_path / leftover[0], (yesterday, yesterday))
    files.remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["file"]


def test_a_directory_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "target"
    for generation in ("one", "two"):
        with files.replace_directory(target) as aside:
            (aside / generation).mkdir()
            (aside / generation / "file").write_text(generation)
            assert aside.parent == tmp_path
        assert os.listdir(target) == [generation]
    assert os.listdir(tmp_path) == ["target"]


def test_a_failed_directory_leaves_the_old_one(tmp_path):
    target = tmp_path / "target"
    with files.replace_directory(target) as aside:
        (aside / "old").touch()
    with pytest.raises(UserError, match="disk full"), files.replace_directory(target) as aside:
        (aside / "new").touch()
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert os.listdir(target) == ["old"] and os.listdir(tmp_path) == ["target"]


def test_without_overwrite_the_first_process_wins(tmp_path):
    target = tmp_path / "target"
    with files.replace_directory(target, overwrite=False) as slow:
        (slow / "slow").touch()
        with files.replace_directory(target, overwrite=False) as quick:
            (quick / "quick").touch()
    assert os.listdir(target) == ["quick"] and os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_many_processes_at_once_leave_one_whole_directory(tmp_path, overwrite):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    processes = [
        context.Process(target=_publish, args=(tmp_path / "target", name, barrier, overwrite))
        for name in "abcd"
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert os.listdir(tmp_path) == ["target"]
    first, second = sorted(os.listdir(tmp_path / "target"))
    assert (first[0], first[1:], second[1:]) == (second[0], "1", "2")


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "empty").touch()
    assert hashes.sha256_file(tmp_path / "empty").startswith("e3b0c44298fc1c14")  # SHA-256 of nothing


def _publish(target, name, barrier, overwrite):
    for _ in range(20):
        barrier.wait()
        with files.replace_directory(target, overwrite) as aside:
            (aside / (name + "1")).touch()
            (aside / (name + "2")).touch()


def _raises(error):
    def call(*_, **__):
        raise error

    return call
