"""Whatever is wrong with an input is told in a line, before anything runs or is written."""

import random
from pathlib import Path

import pytest
from huggingface_hub import constants

from harness.cli import main
from harness.models import tiny
from tests.helpers import bad_inputs, bad_models

BASE = [
    "run",
    "model=tiny-llama",
    "data=synthetic",
    "eval=smoke",
    "scheme=w4g32",
    "method=gptq",
    "device=cpu",
]
QUICK, ALL = 2, 25  # cases of each class


@pytest.fixture(scope="module", autouse=True)
def template(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    model, tokenizer = tiny.tiny_model("llama")
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    bad_models.TEMPLATE[:] = [directory]


@pytest.mark.parametrize("kind", bad_inputs.CLASSES)
def test_bad_inputs_are_refused_in_a_line(kind, tmp_path, monkeypatch, capsys):
    refused(kind, range(QUICK), tmp_path, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("kind", bad_inputs.CLASSES)
def test_many_more_bad_inputs_are_refused_in_a_line(kind, tmp_path, monkeypatch, capsys):
    refused(kind, range(QUICK, ALL), tmp_path, monkeypatch, capsys)


def refused(kind, cases, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for case in cases:
        place, empty = tmp_path / f"place{case}", tmp_path / f"cwd{case}"
        place.mkdir()
        empty.mkdir()
        overrides = bad_inputs.CLASSES[kind](random.Random(f"{kind} {case}"), place)
        before = listing(place)
        monkeypatch.chdir(empty)
        code = main([*BASE, *overrides])
        told = capsys.readouterr().err
        lines = told.splitlines()
        context = f"{overrides} gave {code}: {told}"
        assert code == 2, context
        assert lines and all(line.startswith("ptq-bench: ") for line in lines) and len(lines) <= 2, context
        assert "Traceback" not in told and "unexpected" not in told and 15 < len(told) < 900, context
        assert listing(empty) == [] and listing(place) == before, context


def listing(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))
