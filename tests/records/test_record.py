"""One definition of what a run leaves: records of all versions keep to it, and so do those of tests."""

import json
from pathlib import Path

import pytest

from harness.bookkeeping.description import describe
from harness.records.format import FAILED, FINISHED, STATUSES
from harness.records.record import Description, Ending, Record, Results, check
from tests.helpers.invented_records import ended, record
from tests.helpers.planned_points import config

RECORDS = Path(__file__).parents[2] / "results" / "published"
ALWAYS = Description.__required_keys__ | Ending.__required_keys__


def test_published_records_hold_what_the_definition_says():
    for path in RECORDS.glob("runs/*/record.json"):
        found = json.loads(path.read_bytes())
        check(found)
        assert (
            ALWAYS | Results.__required_keys__ <= found.keys() <= Record.__annotations__.keys() | {"digest"}
        )


@pytest.mark.parametrize("made", [record("a"), record("b", "float", None, 9.0), ended("c", "oom", "why")])
def test_invented_records_hold_it_too(made):
    check(made)
    assert ALWAYS <= made.keys() <= Record.__annotations__.keys()


def test_the_description_of_a_run_is_whole_and_names_the_commit_of_its_checkout():
    description = describe(config("method=float"), "0" * 16)
    assert description.keys() == Description.__required_keys__
    if (Path(__file__).parents[2] / ".git").exists():
        assert len(description["versions"]["git"].removesuffix("+dirty")) == 12


def test_every_status_is_finished_or_failed():
    assert sorted(STATUSES) == sorted((*FINISHED, *FAILED))
