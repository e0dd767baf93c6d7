"""Texts that are too short, and BOS tokens that are not there, are found before anything is loaded."""

import pytest

from harness.config.groups import Bos
from harness.foundation.errors import UserError
from harness.models import tiny
from harness.planning import texts
from harness.planning.texts import check_texts, decided
from tests.helpers.planned_points import config

TEXT = ["a" * 1000]  # a token each


@pytest.fixture(autouse=True)
def short_texts(monkeypatch):
    monkeypatch.setattr("harness.data.corpora.documents", lambda name, split, mirror=None: TEXT)
    for cached in (texts._evaluation, texts._calibration, texts._windows):
        cached.cache_clear()
    yield
    for cached in (texts._evaluation, texts._calibration, texts._windows):
        cached.cache_clear()


def test_calibration_text_that_is_too_short_is_refused():
    check_texts(config("method=gptq", "data.samples=10", "data.window=100"))
    with pytest.raises(
        UserError, match=r"data\.samples=11 of data\.window=100 need 1100 tokens, synthetic has 1001"
    ):
        check_texts(config("method=gptq", "data.samples=11", "data.window=100"))
    check_texts(config("method=float", "data.samples=11", "data.window=100"))  # which reads none


def test_a_corpus_without_one_whole_window_is_refused():
    check_texts(config("method=float", "eval.window=1001"))
    with pytest.raises(UserError, match=r"eval\.window=1002 needs 1002 tokens, synthetic has 1001: lower"):
        check_texts(config("method=float", "eval.window=1002"))


def test_fewer_windows_than_asked_for_are_told():
    assert decided([config("eval.window=100", "eval.windows=10")]) == []
    assert decided([config("eval.window=100", "eval.windows=null")]) == []
    (line,) = decided(
        [config("eval.window=100", "eval.windows.synthetic=11", f"method={m}") for m in ("rtn", "gptq")]
    )
    assert line.startswith("eval.windows=11: synthetic has 10 of 100 tokens")


def test_a_bos_that_is_not_there_is_refused(monkeypatch):
    tokenizer = tiny.byte_tokenizer()
    tokenizer.bos_token = None
    monkeypatch.setattr(texts, "tokenizer_of", lambda model: tokenizer)
    for corpora in ("[synthetic]", "[]"):
        with pytest.raises(UserError, match=r"model\.bos=window.*no BOS"):
            check_texts(config("model.bos=window", f"eval.corpora={corpora}", "method=float"))


def test_what_auto_means_is_told(tmp_path):
    model, tokenizer = tiny.tiny_model("gemma3")
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    of = config("model=hub", f"model.id={tmp_path}", "model.name=mine")
    assert of.model.bos is Bos.auto and decided([of]) == ["model.bos=auto: window for mine"]
