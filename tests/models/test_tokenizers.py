"""Where a BOS belongs by family and by tokenizer, and that what is decided is what keys and records hold."""

from dataclasses import replace

import pytest

from harness.bookkeeping.description import describe
from harness.bookkeeping.keys import run_key, statistics_key
from harness.config.groups import Bos
from harness.config.run_config import RunConfig
from harness.models import tiny
from harness.models.families import FAMILIES
from harness.models.tokenizers import suited_bos, tokenizer_of, with_bos
from tests.helpers.planned_points import config


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Directories of tiny models; `bare`: Gemma without a BOS, `silent`: with one that nobody puts."""
    root = tmp_path_factory.mktemp("models")
    for name in ("llama", "gemma3", "bare", "silent"):
        model, tokenizer = tiny.tiny_model("llama" if name == "llama" else "gemma3")
        if name in ("bare", "silent"):
            tokenizer.backend_tokenizer.post_processor = None
        if name == "bare":
            tokenizer.bos_token = None
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root


def hub(place, name: str, *overrides: str) -> RunConfig:
    given = [f"model.id={place / name}", "model.dtype=float32", *overrides]
    return config("model=hub", *given, "method=gptq", "scheme=w3")


@pytest.mark.parametrize(
    ("name", "bos"),
    [("llama", Bos.stream), ("gemma3", Bos.window), ("silent", Bos.window), ("bare", Bos.stream)],
)
def test_a_hub_model_has_the_bos_that_suits_it(place, name, bos):
    auto, chosen = hub(place, name), hub(place, name, f"model.bos={bos.value}")
    assert auto.model.bos is Bos.auto and with_bos(auto.model).bos is bos
    assert (run_key(auto), statistics_key(auto)) == (run_key(chosen), statistics_key(chosen))
    assert describe(auto, "key")["model"]["bos"] == bos.value


def test_a_choice_wins(place):
    for bos in (Bos.none, Bos.stream, Bos.window):
        chosen = hub(place, "gemma3", f"model.bos={bos.value}")
        assert with_bos(chosen.model) is chosen.model
        assert (run_key(chosen) == run_key(hub(place, "gemma3"))) == (bos is Bos.window)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_gemma_needs_a_bos_in_every_window(family):
    expected = Bos.window if family.startswith("gemma") else Bos.stream
    assert suited_bos(family, tiny.byte_tokenizer()) is expected


def test_a_tokenizer_that_changed_on_disk_is_read_again(place, tmp_path):
    model = replace(hub(place, "gemma3").model, id=str(tmp_path))
    for name, bos in (("gemma3", Bos.window), ("bare", Bos.stream)):
        for file in (place / name).iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / "special_tokens_map.json").unlink(missing_ok=True)
        assert with_bos(model).bos is bos and (tokenizer_of(model).bos_token_id is None) == (name == "bare")
