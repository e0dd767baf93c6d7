"""Records are never lost, doubled or torn, whoever is killed while writing; one that is damaged is named and
harms no other.
"""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.foundation.errors import UserError
from harness.foundation.seals import read_record, seal
from harness.records.store import Store
from harness.reporting.frames import load_records
from tests.helpers.invented_records import record, store
from tests.torture.faults import Faults

ROOT = Path(__file__).parents[2]
LONG = pytest.param(32, 1000, 200, marks=[pytest.mark.torture, pytest.mark.timeout(3600)])


@pytest.mark.parametrize(("writers", "each", "kills"), [(6, 30, 12), LONG])
def test_writers_that_are_killed(writers, each, kills, tmp_path):
    command = [
        sys.executable,
        "-m",
        "tests.torture.writers",
        str(tmp_path),
        *map(str, (writers, each, kills, 0)),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    print(told)
    assert told["wrong"] == [] and told["killed"] == kills
    assert {name: told[name] for name in ("lost", "duplicate", "missing", "torn", "locks")} == dict.fromkeys(
        ("lost", "duplicate", "missing", "torn", "locks"), 0
    )
    assert writers * each - kills <= told["acknowledged"] <= told["records"] == writers * each
    assert not list(tmp_path.glob("results/runs/*/record.json.*"))


KEY, OTHER = "5f" * 8, "ab" * 8


@pytest.fixture
def damaged(tmp_path):
    """Puts bytes in the place of one record beside another; returns what the store says of the first."""
    results = store(tmp_path / "results", record(KEY), record(OTHER)) or tmp_path / "results"
    place = results / "runs" / KEY / "record.json"
    whole = seal(record(KEY) | {"attempt": 1})

    def look(content: bytes) -> dict | str | None:
        place.write_bytes(content)
        assert Store(results).record(OTHER)["status"] == "done"
        try:
            found = Store(results).record(KEY)
            Store(results).finished(KEY, save=False)
            return found
        except UserError as error:
            assert str(place) in str(error) and "\n" not in str(error)
            return str(error)

    return look, whole, results


def test_cut_short_at_every_byte(damaged):
    look, whole, results = damaged
    assert look(whole) == read_record(whole)
    for length in range(len(whole.rstrip())):
        assert isinstance(look(whole[:length]), str), length
    assert [place for place, _ in load_records(results).left_out] == [f"runs/{KEY}/record.json"]


def test_a_thousand_corruptions(damaged):
    """Not a changed digit goes unnoticed, and nothing ends in a traceback; how a record is indented is no
    matter.
    """

    def layout(raw: bytes) -> bytes:
        return re.sub(rb"\n *", b"", bytes(raw))

    look, whole, results = damaged
    chance, noticed = random.Random(0), 0
    for number in range(1000):
        content = bytearray(whole)
        start = chance.randrange(len(content))
        length = chance.choice((1, 1, 4, 64))
        content[start : start + length] = chance.choice((chance.randbytes(length), bytes(length), b""))
        found = look(bytes(content))
        if bytes(content) == whole:
            continue
        noticed += isinstance(found, str)
        assert isinstance(found, str) or (found == read_record(whole) and layout(content) == layout(whole)), (
            number,
            found,
        )
        if number % 20 == 0:
            assert OTHER in set(load_records(results).frame.run_key)
    assert noticed > 900


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"3", b"{}", b'{"status": "done"}', b"\xff\xfe", b"[" * 100_000, b"\0" * 4096],
)
def test_what_is_no_record(content, damaged):
    assert isinstance(damaged[0](content), str)


def test_a_failure_replaces_no_finished_record(tmp_path):
    results = Store(tmp_path)
    kept = results.commit(KEY, {"run_key": KEY, "status": "done", "reason": None}, {}, {}, "")
    assert results.commit(KEY, {"run_key": KEY, "status": "failed", "reason": "no luck"}, {}, {}, "") == kept
    assert results.record(KEY)["status"] == "done"


def test_a_power_cut_does_not_take_the_directory_of_a_run(tmp_path):
    """Syncing what is in a new directory does not put the directory itself on disk."""
    with Faults(tmp_path) as faults:
        Store(tmp_path).open(KEY)
    assert f"mkdir runs/{KEY}" in faults.steps and faults.steps[-1] == "fsync runs"
