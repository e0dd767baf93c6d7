"""The table of `ptq-bench plan`: where every point stands, what the rest will take, and why some will not
run.
"""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from harness.bookkeeping import words
from harness.bookkeeping.keys import run_key
from harness.bookkeeping.point import Point
from harness.foundation.errors import UserError
from harness.foundation.seals import seal
from harness.planning import plan
from harness.records.attempts import claim
from harness.records.standing import standing
from tests.helpers.planned_points import config, leave_record


def point(tmp_path, *overrides: str) -> Point:
    of = config(*overrides, results=str(tmp_path))
    return Point(("eval=smoke", *overrides), of, run_key(of))


@pytest.fixture(autouse=True)
def a_machine_of_known_speed(monkeypatch):
    monkeypatch.setattr("harness.planning.rates.products_per_second", lambda device: 1e9)


def shown(*points: Point, width: int = 160) -> str:
    text = io.StringIO()
    plan.show(points, Console(file=text, width=width, soft_wrap=True))
    return text.getvalue()


def leave_blocks(directory, count: int) -> None:
    content = {"identity": {}, "blocks": [{}] * count, "stream": None, "seconds": 1.0}
    (directory / "resume").mkdir(parents=True)
    (directory / "resume" / "manifest.json").write_bytes(seal(content))


def test_every_state_is_told(tmp_path):
    done, failed, killed, running, skipped, missing = (
        point(tmp_path, *overrides)
        for overrides in (
            ["method=rtn", "scheme=w4"],
            ["method=rtn", "scheme=w3"],
            ["method=gptq", "scheme=w3"],
            ["method=gptq", "scheme=w2"],
            ["method=rtn", "scheme.outlier_ratio=0.1"],
            ["method=gptq", "scheme=w4"],
        )
    )
    leave_record(tmp_path, done.key, seconds={"total": 95.0}, peak_memory_bytes={"cpu": 3 * 2**30, "gpu": 0})
    leave_record(tmp_path, failed.key, status="failed", reason="the disk [of this machine] is full")
    leave_blocks(tmp_path / "runs" / killed.key, 2)
    text = ""
    with claim(tmp_path / "runs" / running.key):
        assert plan.state_of(running).name == "running"
        text = shown(
            done,
            failed,
            killed,
            running,
            skipped,
            missing,
            Point(("scheme.bits=9",), error="scheme.bits=9: too many"),
        )
    assert plan.state_of(running).name == "interrupted", "its claim is over and it has left no record"
    rows = {
        row.split("│")[1].strip(): [cell.strip() for cell in row.split("│")]
        for row in text.splitlines()
        if row.startswith("│")
    }
    assert rows[done.key][3:6] == ["done", "1.6 min", "3.0 GiB"], "measured, without a tilde"
    assert (
        rows[failed.key][3:6] == ["failed [1]", "", ""] and "[1] the disk [of this machine] is full" in text
    )
    assert rows[killed.key][3] == "interrupted, 2 of 3 blocks kept"
    assert rows[running.key][3] == "running" and rows[missing.key][3] == "missing"
    assert (
        rows[skipped.key][3] == "to be skipped [2]" and "outlier" in text.split("\n[2] ")[1].splitlines()[0]
    )
    assert rows["–"][3] == "illegal [3]" and "[3] scheme.bits=9: too many" in text
    for key in (killed.key, missing.key):
        assert rows[key][4].startswith("~") and rows[key][5].startswith("~") and "MiB" in rows[key][5]
    assert "1 done, 1 failed, 1 interrupted, 1 running, 1 to be skipped, 1 missing, 1 illegal" in text
    assert "to run: 2 points" in text and "how fast this machine multiplies matrices" in text


def test_what_a_killed_attempt_has_kept_is_not_paid_for_again(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.planning.estimator.START", 0.0)
    whole = point(tmp_path, "method=gptq", "data.samples=64")
    leave_record(tmp_path, run_key(config("method=float", results=str(tmp_path))))
    assert plan.state_of(whole).kept == 0
    estimate = plan.Estimator().estimate(whole).seconds
    leave_blocks(tmp_path / "runs" / whole.key, 2)
    kept = plan.state_of(whole).kept
    assert kept == pytest.approx(2 / 3) and plan.Estimator().estimate(whole, kept).seconds < 0.5 * estimate


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"blocks": [3]}', '{"digest": 3}'])
def test_a_damaged_manifest_keeps_nothing(tmp_path, damage):
    killed = point(tmp_path, "method=gptq")
    leave_blocks(tmp_path / "runs" / killed.key, 1)
    (tmp_path / "runs" / killed.key / "resume" / "manifest.json").write_text(damage)
    assert plan.state_of(killed) == plan.State("interrupted")


@pytest.mark.parametrize("content", [b"{", b'{"a": 1}'])
def test_a_damaged_record_is_told_and_not_run_over(tmp_path, content):
    made = point(tmp_path)
    path = tmp_path / "runs" / made.key / "record.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(UserError, match="record"):
        plan.state_of(made)
    assert standing(tmp_path, made.key).state == "waiting"


def test_failed_points_count_as_work_only_with_retry(tmp_path):
    failed = point(tmp_path, "method=rtn")
    leave_record(tmp_path, failed.key, status="oom", reason="no memory")
    assert "nothing to run" in shown(failed)
    assert "to run: 1 points" in shown(replace(failed, config=replace(failed.config, retry=True)))


def test_a_method_that_does_not_count_its_work_has_a_question_mark(tmp_path):
    class Silent:
        def skip_reason(self, scheme):
            return None

    of = point(tmp_path, "method=rtn")
    silent = replace(of.config, method=replace(of.config.method, solver=Silent()))
    text = shown(replace(of, config=silent), point(tmp_path, "method=gptq"))
    assert " ? " in text and "1 whose methods do not count their work" in text


def test_what_all_points_share_is_told_once(tmp_path):
    text = shown(point(tmp_path, "method=rtn"), point(tmp_path, "method=gptq"), width=100)
    assert text.count("eval=smoke") == 1 and "all points: eval=smoke" in text and "method=gptq" in text
    assert all(len(line) <= 100 for line in text.splitlines() if line[:1] in "┏│└")


@pytest.mark.parametrize(
    "seconds, told",
    [
        (0.2, "~1 s"),
        (7.4, "~7 s"),
        (43, "~45 s"),
        (100, "~2 min"),
        (1000, "~15 min"),
        (3 * 3600, "~3 h"),
        (5e5, "~6 days"),
        (None, "?"),
    ],
)
def test_estimates_are_told_as_precisely_as_they_are(seconds, told):
    assert words.told_seconds(seconds) == told


def test_measured_times_and_sizes_are_told_exactly():
    assert words.told_seconds(43.2, exact=True) == "43 s" and words.told_seconds(150, exact=True) == "2.5 min"
    assert (
        words.told_bytes(500 * 2**20) == "500 MiB"
        and words.told_bytes(int(2.64 * 2**30)) == "2.6 GiB"
        and words.told_bytes(2**35) == "32 GiB"
    )
