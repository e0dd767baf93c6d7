"""The same files, the same run key, other token ids: what a changed tokenizer library does is noticed."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tokenizers import normalizers

from harness.bookkeeping import token_ids as module
from harness.bookkeeping.keys import run_key
from harness.bookkeeping.point import Point
from harness.bookkeeping.token_ids import changed, finished, ids_sha256, token_ids
from harness.foundation import cache
from harness.foundation.seals import read_record, seal
from harness.models import tiny
from harness.planning import plan
from harness.records.store import Store
from harness.run import run
from tests.helpers.planned_points import config

SMALL = ["data.samples=2", "eval.windows=2", "data.propagate=float", "scheme=w3"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setenv("PTQ_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def another_library(monkeypatch):
    """From when it is called: the tokenizer gives other ids, though no file has changed."""
    original = tiny.byte_tokenizer

    def changed():
        tokenizer = original()
        tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
        return tokenizer

    return lambda: monkeypatch.setattr(tiny, "byte_tokenizer", changed)


def made(key: str) -> dict:
    return Store("results").record(key)


def files() -> list[Path]:
    return sorted(Path("cache/statistics").glob("*/block-*"))


def state(point) -> tuple[str, str]:
    found = plan.state_of(Point((), point, run_key(point)))
    return found.name, found.reason


def test_what_was_made_with_other_ids_is_made_again(another_library):
    point, other = config("method=rtn", *SMALL), config("method=gptq", *SMALL)
    key, first = run_key(point), run(Point.of(point))
    assert set(first["token_ids"]) == {"calibration", "perplexity/synthetic"}
    assert first["token_ids"] == token_ids(point) and state(point)[0] == "done"
    baseline = made(first["baseline"]["run_key"])
    assert set(baseline["token_ids"]) == {"perplexity/synthetic"}
    assert run(Point.of(other))["reused"]["statistics"] and run(Point.of(point)) == first

    another_library()
    assert run_key(point) == key and not Point((), point, key).settled()
    name, reason = state(point)
    assert name == "outdated" and "calibration, perplexity/synthetic" in reason
    text = io.StringIO()
    plan.show([Point((), point, key)], Console(file=text, width=160, soft_wrap=True))
    assert "outdated [1]" in text.getvalue() and "other token ids" in text.getvalue()
    assert "to run: 1 points" in text.getvalue()
    second = run(Point.of(point))
    assert second["run_key"] == key and second["attempt"] > first["attempt"]
    assert second["token_ids"] == token_ids(point) != first["token_ids"]
    assert not second["reused"]["statistics"]
    assert made(baseline["run_key"])["attempt"] > baseline["attempt"]
    value = second["metrics"]["perplexity/synthetic"]["value"]
    assert value != first["metrics"]["perplexity/synthetic"]["value"]
    assert "other token ids" in (Path("results/runs") / key / "log.txt").read_text()
    assert run(Point.of(other))["reused"]["statistics"]  # those of today
    assert run(Point.of(point)) == second and state(point)[0] == "done"


def test_a_checkpoint_of_other_ids_is_replaced(another_library):
    point = config("method=gptq", "save=true", *SMALL)
    weights = Path("results/runs") / run_key(point) / "checkpoint" / "quantized.safetensors"
    run(Point.of(point))
    before = weights.read_bytes()
    another_library()
    run(Point.of(point))
    assert weights.read_bytes() != before


def test_records_and_statistics_of_former_versions_are_taken_at_their_word(another_library):
    point, other = config("method=rtn", *SMALL), config("method=gptq", *SMALL)
    first = run(Point.of(point))
    for path in Path("results/runs").glob("*/record.json"):
        record = read_record(path.read_bytes())
        del record["token_ids"]
        path.write_bytes(seal(record))
    from safetensors.torch import load_file, save_file

    for path in files():
        save_file(load_file(path), path)
    another_library()
    record = made(run_key(point))
    assert changed(record, point) is None and finished(Store("results"), run_key(point), point)
    assert run(Point.of(point)) == record and record["attempt"] == first["attempt"]
    assert files() and run(Point.of(other))["reused"]["statistics"]


def test_a_killed_run_does_not_go_on_with_other_ids(another_library, monkeypatch):
    from harness.quantization import resume

    point, kept = config("method=gptq", *SMALL), []
    original = resume.Resume.settle

    def dying(self):
        original(self)
        if self.blocks == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(resume.Resume, "settle", dying)
        run(Point.of(point))
    start = resume.Resume.__init__
    monkeypatch.setattr(
        resume.Resume,
        "__init__",
        lambda self, *rest: [start(self, *rest), kept.append(self.blocks)][:0] or None,
    )
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(resume.Resume, "settle", dying)
        run(Point.of(point))
    another_library()
    run(Point.of(point))
    assert kept[0] == 2 and kept[-1] == 0


def test_texts_that_are_not_here_say_nothing(monkeypatch):
    from harness.foundation.errors import UserError

    point = config("method=float")

    def gone(*_):
        raise UserError("no connection")

    monkeypatch.setattr(module, "_known", {})
    monkeypatch.setattr("harness.data.corpora.documents", gone)
    assert changed({"token_ids": {"perplexity/synthetic": "x"}, "versions": {}}, point) is None


def test_the_hash_sees_values_and_shape():
    rows = torch.arange(6)
    assert (
        len({ids_sha256(rows), ids_sha256(rows.view(2, 3)), ids_sha256(rows + 1), ids_sha256(rows[:5])}) == 4
    )
    assert ids_sha256(rows) == ids_sha256(torch.stack([rows, rows], 1)[:, 0])
