"""Names become labels, never places: whatever a user calls things, nothing is written outside the results,
and no two runs meet.
"""

import dataclasses
import random
from functools import cache

import matplotlib.font_manager  # noqa: F401 (keeps a list of fonts below the HOME that it is imported with)
import pytest
from hydra import compose, initialize_config_module

from harness.bookkeeping.keys import run_key
from harness.bookkeeping.point import Point
from harness.cli import main
from harness.config.run_config import to_run_config
from harness.foundation.errors import UserError
from harness.planning.preflight import check
from harness.reporting.writing import write_report
from harness.run import run

OVERRIDES = [
    "model=tiny-llama",
    "data=synthetic",
    "data.samples=2",
    "eval=smoke",
    "eval.windows=1",
    "scheme=w4g32",
    "method=rtn",
    "device=cpu",
]
SEEDS = [
    "..",
    "../../escaped",
    "/escaped",
    "~/escaped",
    "a/b",
    "a:b",
    "a__b",
    "a\\b",
    ".",
    "",
    " ",
    "CON",
    "nul.txt",
    "-rf",
    "--help",
    "$HOME",
    "`id`",
]
SEEDS += [
    "a\0b",
    "a\nb",
    "a\r\nb",
    "\t",
    "x" * 300,
    "é" * 200,
    "\u202etxt.exe",
    "\u200b",
    "ﬁle",
    "e\u0301",
    "é",
    "\x1b[31mred",
    "[bold]",
    "[/]",
]
SEEDS += [
    "${seed}",
    "%s",
    "{0}",
    "*",
    "?",
    "|",
    "<script>",
    "\\input{/etc/passwd}",
    "=1+1",
    "\ud800",
    "C:\\x",
    "file:///x",
    "\\\\host\\x",
    "None",
    "'",
]


def names(count):
    """Seeds, then pairs of them; all different."""
    rng = random.Random(0)
    if count < len(SEEDS):
        return rng.sample(SEEDS, count)
    pairs = (f"{rng.choice(SEEDS)}{rng.choice(['/', '', ' ', '.'])}{rng.choice(SEEDS)}" for _ in iter(int, 1))
    found = dict.fromkeys(SEEDS)
    while len(found) < count:
        found[next(pairs)] = None
    return list(found)[:count]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with files around it that must stay as they are; `results` is a link."""
    for name in ("around/canary", "cwd/canary", "elsewhere/canary"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("untouched")
    (tmp_path / "cwd" / "results").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("HOME", str(tmp_path / "around"))
    return tmp_path


def outside(place):
    """Everything but what runs may write."""
    allowed = (place / "elsewhere" / "runs", place / "cache")
    found = [
        path for path in place.rglob("*") if not any(path == top or top in path.parents for top in allowed)
    ]
    return sorted(
        (path.relative_to(place).as_posix(), path.read_bytes() if path.is_file() else None) for path in found
    )


@cache
def base():
    with initialize_config_module("conf", version_base="1.3"):
        return to_run_config(compose("config", OVERRIDES))


def named(name):
    """A run in which the user's own words are all `name`."""
    config = base()
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, name=name),
        eval=dataclasses.replace(config.eval, name=name),
        tracker=dataclasses.replace(config.tracker, project=name, group=name, entity=name, tags=[name]),
        # of these, the only one that is part of the run key
        method_config=config.method_config | {"name": name},
    )


def every_name_works(place, count):
    before, keys = outside(place), set()
    for name in names(count):
        record = run(Point.of(named(name)))
        assert record["status"] == "done", (name, record["reason"])
        keys.add(record["run_key"])
    assert outside(place) == before
    # and the float baseline
    assert len(keys) == count == len(list((place / "elsewhere" / "runs").iterdir())) - 1
    assert {path.name for path in (place / "elsewhere" / "runs").iterdir()} > keys


def test_a_run_may_be_called_anything(place):
    every_name_works(place, 4)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # 200 runs
def test_two_hundred_runs_may_be_called_anything(place):
    every_name_works(place, 200)


def test_no_two_names_share_a_key(place):
    assert len({run_key(named(name)) for name in names(200)}) == 200


def test_names_that_mean_something_are_refused_or_known(place):
    before = outside(place)
    for name in names(200):
        for group, field, value in [
            ("data", "name", name),
            ("eval", "corpora", [name]),
            ("eval", "tasks", [name]),
            ("model", "id", name),
        ]:
            config = dataclasses.replace(
                base(), **{group: dataclasses.replace(getattr(base(), group), **{field: value})}
            )
            with pytest.raises(UserError):
                check(config)
    assert outside(place) == before


def test_reports_stay_where_they_belong(place, capsys):
    for name in ("[/]", "a|b\n<script>", "\\input{/etc/passwd}"):
        run(Point.of(named(name)))
    before = outside(place)
    capsys.readouterr()
    for name in SEEDS[:24]:
        code = main(["report", f"name={name}", "format=md,csv"])
        told = capsys.readouterr().err
        if code:
            assert told.startswith("ptq-bench: ") and told.count("\n") == 1 and "unexpected" not in told, (
                name,
                told,
            )
    made = place / "cwd" / "reports"
    assert {path.name for path in made.iterdir()} == {"CON", "nul.txt", "a__b"}
    assert {path.suffix for path in made.rglob("*") if path.is_file()} == {".md", ".csv", ".png"}
    assert [entry for entry in outside(place) if not entry[0].startswith("cwd/reports")] == before
    text = write_report("results", "reports", "hostile", formats=("md",)).read_text()
    assert "<script>" not in text and "a|b\n" not in text
