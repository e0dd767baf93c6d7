"""A run is named by its key or by the beginning of one; every command means the same by it."""

import pytest

from harness.foundation.errors import UserError
from harness.records.lookup import find, meant


def test_a_whole_name_is_meant_though_others_begin_so():
    names = {"first": ("abcd",), "second": ("abcdef",), "third": ("abcdeg", "x1")}
    assert meant("abcd", names, names.get) == ["first"]
    assert meant("abc", names, names.get) == ["first", "second", "third"]
    assert meant("x", names, names.get) == ["third"]
    assert meant("", names, names.get) == meant("b", names, names.get) == []


def test_runs_are_found_at_any_depth_and_aside_directories_are_none(tmp_path):
    for place in ("runs/abcd", "runs/abcdef", "more/runs/b1", "more/runs/.b2-aside"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "runs" / "b3").write_text("no run")
    assert find("abcd", tmp_path) == tmp_path / "runs" / "abcd"
    assert find("b", tmp_path) == tmp_path / "more" / "runs" / "b1"
    with pytest.raises(UserError, match="ambiguous"):
        find("abc", tmp_path)
