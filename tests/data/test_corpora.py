"""Texts: what is prose, which rows make a protocol's stream, and how a stream becomes windows."""

import bz2
import gzip
import json
import os
import re
import subprocess
import sys

import pandas
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from harness.config.groups import Bos
from harness.data import assets, corpora, pseudotext, wikipedia
from harness.data.tokens import encode
from harness.data.windows import (
    calibration_tokens,
    check_calibration,
    check_evaluation,
    evaluation_windows,
)
from harness.foundation import cache
from harness.foundation.errors import UserError

BOS = 0
TEXTS = ["alpha beta gamma", "delta", "epsilon zeta eta theta iota kappa"]
STREAM = "\n\n".join(TEXTS)  # one token per byte below


@pytest.fixture(scope="module")
def tokenizer():
    """One token per byte, and a BOS before the whole, as the tokenizers of Llama do it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(
        models.BPE(vocab={"<s>": BOS, **{c: i for i, c in enumerate(alphabet, 1)}}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", model_max_length=8)


# ---- windows


def test_evaluation_windows_tile_the_text_from_its_start(tokenizer):
    none = evaluation_windows(TEXTS, tokenizer, 7, None, Bos.none)
    assert none.dtype == torch.long and none.shape == (len(STREAM) // 7, 7)
    assert tokenizer.decode(none.flatten()) == STREAM[: none.numel()]
    stream = evaluation_windows(TEXTS, tokenizer, 7, 3, Bos.stream)
    assert stream.shape == (3, 7) and stream[0, 0] == BOS and (stream == BOS).sum() == 1
    assert tokenizer.decode(stream.flatten()[1:]) == STREAM[:20]
    window = evaluation_windows(TEXTS, tokenizer, 7, 3, Bos.window)
    assert window.shape == (3, 7) and (window[:, 0] == BOS).all() and (window == BOS).sum() == 3
    assert tokenizer.decode(window[:, 1:].flatten()) == STREAM[:18]


@pytest.mark.parametrize("bos", [Bos.none, Bos.stream, Bos.window])
def test_calibration_segments_are_pieces_of_the_text(tokenizer, bos):
    tokens = calibration_tokens(TEXTS, tokenizer, 5, 9, seed=3, bos=bos)
    assert tokens.shape == (5, 9) and tokens.dtype == torch.long
    for row in tokens:
        assert (row[0] == BOS) == (bos is Bos.window) or bos is Bos.stream
        assert tokenizer.decode(row, skip_special_tokens=True) in STREAM
    assert torch.equal(tokens, calibration_tokens(TEXTS, tokenizer, 5, 9, seed=3, bos=bos))
    assert not torch.equal(tokens, calibration_tokens(TEXTS, tokenizer, 5, 9, seed=4, bos=bos))


def test_calibration_reaches_every_place_of_the_text(tokenizer):
    rows = {
        tokenizer.decode(calibration_tokens(["abcdef"], tokenizer, 1, 4, s, Bos.none)[0]) for s in range(40)
    }
    assert rows == {"abcd", "bcde", "cdef"}


def test_calibration_leaves_the_global_generator_alone(tokenizer):
    state = torch.get_rng_state()
    calibration_tokens(TEXTS, tokenizer, 2, 8, seed=0, bos=Bos.none)
    assert torch.equal(state, torch.get_rng_state())


def test_short_texts_are_refused_with_the_knobs(tokenizer):
    for samples, window in ((10, 8), (1, 80)):
        with pytest.raises(
            UserError, match=rf"data.samples={samples} .*data.window={window} .*lower data.samples"
        ):
            calibration_tokens(TEXTS, tokenizer, samples, window, 0, Bos.none)
        with pytest.raises(UserError, match=rf"data.samples={samples} .* synthetic has \d+: lower"):
            check_calibration("synthetic", TEXTS, tokenizer, samples, window, Bos.none)
    for windows in (1, None):
        with pytest.raises(UserError, match=r"eval\.window=80 needs 80 .*lower eval\.window"):
            evaluation_windows(TEXTS, tokenizer, 80, windows, Bos.none)
    with pytest.raises(UserError, match=r"eval\.window=80 .* synthetic has \d+: lower eval\.window"):
        check_evaluation("synthetic", TEXTS, tokenizer, 80, Bos.stream)


def test_so_many_windows_as_are_asked_for_at_most(tokenizer):
    there = len(STREAM) // 8
    for asked, given in ((1, 1), (there, there), (there + 1, there), (10_000, there), (None, there)):
        assert len(evaluation_windows(TEXTS, tokenizer, 8, asked, Bos.none)) == given


@pytest.mark.parametrize("bos", [Bos.none, Bos.stream, Bos.window])
def test_what_is_checked_before_is_what_is_needed_then(tokenizer, bos):
    """One token more than there is, and it is refused; read whole or, where that is enough, in part."""
    long = [STREAM] * 50
    most = len("\n\n".join(long)) + (bos is Bos.stream)
    for documents, tokens in ((TEXTS, len(STREAM) + (bos is Bos.stream)), (long, most)):
        fits = tokens + (bos is Bos.window)
        check_evaluation("x", documents, tokenizer, fits, bos)
        check_calibration("x", documents, tokenizer, 1, fits, bos)
        assert calibration_tokens(documents, tokenizer, 1, fits, 0, bos).shape == (1, fits)
        for check in (check_evaluation, lambda *rest: check_calibration(*rest[:3], 1, *rest[3:])):
            with pytest.raises(UserError, match=f"{tokens + 1} tokens, x has {tokens}"):
                check("x", documents, tokenizer, fits + 1, bos)
    check_calibration("x", long, tokenizer, 3, 100, bos)


def test_a_tokenizer_without_bos_cannot_put_one(tokenizer):
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(UserError, match=r"model\.bos=stream"):
        evaluation_windows(TEXTS, bare, 8, 1, Bos.window)


@pytest.mark.parametrize("bos", [Bos.none, Bos.stream, Bos.window])
def test_an_eos_that_the_tokenizer_appends_ends_no_text(tokenizer, bos):
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.add_special_tokens(["</s>"])
    eos = backend.token_to_id("</s>")
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", eos)]
    )
    ending = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    assert ending("a")["input_ids"][-1] == eos
    assert encode("a", ending, bos) == encode("a", tokenizer, bos)
    for read in (
        lambda tokenizer: evaluation_windows(TEXTS, tokenizer, 3, None, bos),
        lambda tokenizer: calibration_tokens(TEXTS, tokenizer, 19, 3, 0, bos),
    ):
        assert torch.equal(read(ending), read(tokenizer))
    assert eos not in calibration_tokens(TEXTS, ending, 1, len(STREAM), 0, bos)


def test_windows_have_all_tokens_of_a_bos_of_several(tokenizer):
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    first = backend.token_to_id("!")
    backend.post_processor = processors.TemplateProcessing(
        single="! <s> $A", special_tokens=[("!", first), ("<s>", BOS)]
    )
    two = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")
    windows = evaluation_windows(TEXTS, two, 7, 3, Bos.window)
    assert windows[:, :2].tolist() == [[first, BOS]] * 3
    assert tokenizer.decode(windows[:, 2:].flatten()) == STREAM[:15]
    assert evaluation_windows(TEXTS, two, 7, 3, Bos.stream)[0, :2].tolist() == [first, BOS]
    with pytest.raises(UserError, match=r"eval\.window=2: no room"):
        evaluation_windows(TEXTS, two, 2, None, Bos.window)


def test_long_texts_are_tokenized_without_a_warning(tokenizer, monkeypatch):
    from transformers import tokenization_utils_base

    told = []
    monkeypatch.setattr(
        tokenization_utils_base.logger, "warning", lambda message, *_, **__: told.append(message)
    )
    evaluation_windows(TEXTS, tokenizer, 8, 1, Bos.none)
    assert told == []
    tokenizer(STREAM)
    assert len(told) == 1 and "longer than" in told[0]  # what it would have said


# ---- corpora


def test_synthetic_text_is_the_same_everywhere_and_its_splits_differ():
    test = corpora.documents("synthetic", "test")
    # drawn with Python 3.11; must not depend on it
    assert corpora.text_sha256(test).startswith("8978b84e9f54")
    train = corpora.documents("synthetic", "train")
    assert not set(test) & set(train) and len(set(train)) == len(train) == 500
    assert sum(map(len, train)) > 2 * 128 * 512  # enough for 128 windows even of a byte tokenizer
    words = re.findall("[a-z]+", " ".join(train).lower())
    assert len(set(words)) > 1000 and pseudotext.articles(2, seed=1) != pseudotext.articles(2, seed=2)


def test_the_hash_sees_documents_and_their_borders():
    hashes = {
        corpora.text_sha256(texts)
        for texts in (["ab", "c"], ["a", "bc"], ["abc"], ["ab", "c", ""], ["c", "ab"])
    }
    assert len(hashes) == 5


def test_unknown_corpora_are_refused_with_a_suggestion():
    with pytest.raises(UserError, match="'wikitext': did you mean wikitext2"):
        corpora.documents("wikitext", "test")
    with pytest.raises(UserError, match="there are wiki, news"):
        corpora.documents("zzz", "test")


MARKUP = """{{Infobox person|name=Ada}}
[[File:Ada.jpg|thumb|A long caption about [[Ada]] that goes on and on until it is as long as any paragraph of the article.]]
'''Ada''' ({{IPAc-en|a}}; born 1815{{citation needed|date=May 2016}}){{sfn|Smith|1990}} was a [[mathematics|mathematician]] &amp;\
 writer.<ref>\
{{cite web|title=On Ada. A long title that would be a sentence of its own.}}</ref> She walked {{convert|5|km|mi}} a day\
<!-- so they say -->, read ''everything'', and wrote to [[Charles Babbage]] about H<sub>2</sub>O.

Where <math>x^2</math> is found in a paragraph of enough length to stay, that paragraph goes, because it would have a hole.

So goes one with {{an unknown template|1}} in the middle of it, even if it has a hundred characters or more than that.

== Works ==
Short lines go.
* An item of a list, which is long enough and ends as a sentence does, but lists are not running prose, so it goes too.
{| class="wikitable"
| A cell of a table that is long enough to be taken for a paragraph, and ends as a paragraph ends, but is part of a table.
|}
A line that is long enough to be taken for prose but ends without a full stop, like a heading, a caption or a stub of one
[[Category:Mathematicians]] [[fr:Ada]]
"""  # noqa: E501
PROSE = "Ada (born 1815) was a mathematician & writer. She walked 5 km a day, read everything, and wrote to Charles Babbage about H2O."  # noqa: E501


def test_markup_becomes_running_prose():
    assert wikipedia.paragraphs(MARKUP) == [PROSE]


def test_a_dump_is_parsed_once_and_split_by_article(tmp_path, monkeypatch):
    titles = [f"Title {number}" for number in range(60)]
    pages = [_page(title, "0", f"{title}. {PROSE}") for title in titles]
    pages += [
        _page("Talk:Ada", "1", PROSE),
        _page("AdaL", "0", "#REDIRECT [[Ada]]", '<redirect title="Ada" />'),
    ]
    dump = tmp_path / "dump.bz2"
    dump.write_bytes(bz2.compress(f'<mediawiki xmlns="http://a/b/">{"".join(pages)}</mediawiki>'.encode()))
    monkeypatch.setattr(assets, "fetch", lambda name: dump)
    train, test = corpora.documents("wiki", "train"), corpora.documents("wiki", "test")
    assert sorted(train + test) == sorted(f"{title}. {PROSE}" for title in titles) and 3 < len(test) < 20
    dump.unlink()
    assert corpora.documents("wiki", "train") == train
    assert os.listdir(cache.cache_dir() / "corpora") == [f"wiki-{wikipedia.VERSION}.jsonl"]


def test_news_and_analogies_are_read_line_by_line(tmp_path, monkeypatch):
    (tmp_path / "news-test").write_bytes(b"one \xa35 story\n\nanother\n")
    (tmp_path / "analogies").write_text(": capitals\nAthens Greece Oslo Norway\n: family\nboy girl he she\n")
    monkeypatch.setattr(assets, "fetch", lambda name: tmp_path / name)
    assert corpora.documents("news", "test") == ["one £5 story", "another"]
    assert corpora.analogies() == [
        ("capitals", "Athens", "Greece", "Oslo", "Norway"),
        ("family", "boy", "girl", "he", "she"),
    ]


@pytest.fixture(params=["sentence", "text"])
def hub_like(tmp_path, monkeypatch, request):
    """A directory laid out as the hub, a few rows of each published corpus; PTB's column has two names."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    root = tmp_path / "mirror"
    wikitext = root / "Salesforce/wikitext"
    for split in ("train", "test"):
        _parquet(
            wikitext / f"wikitext-2-raw-v1/{split}-00000-of-00001.parquet",
            text=["", f" = {split} = \n", " text \n"],
        )
    files = [{"split": split, "path": f"wikitext-2-raw-v1/{split}-*"} for split in ("train", "test")]
    configs = json.dumps({"configs": [{"config_name": "wikitext-2-raw-v1", "data_files": files}]})
    (wikitext / "README.md").write_text(f"---\n{configs}\n---\n")
    for file, count in (("c4-train.00000-of-01024", 3), ("c4-validation.00000-of-00008", 1200)):
        path = root / "allenai/c4/en" / f"{file}.json.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            gzip.compress("".join(json.dumps({"text": f"d{i}"}) + "\n" for i in range(count)).encode())
        )
    for split in ("train", "validation"):
        _parquet(
            root / f"ptb-text-only/ptb_text_only/penn_treebank/{split}-00000-of-00001.parquet",
            **{request.param: [split, "b"]},
        )
    return str(root)


def test_published_corpora_follow_their_protocols(hub_like):
    assert corpora.documents("wikitext2", "test", hub_like) == ["", " = test = \n", " text \n"]
    assert corpora.documents("wikitext2", "train", hub_like)[1] == " = train = \n"
    assert corpora.documents("c4", "train", hub_like) == ["d0", "d1", "d2"]
    # the "c4-new" stream
    assert corpora.documents("c4", "test", hub_like) == [" ".join(f"d{i}" for i in range(1100))]
    assert corpora.documents("ptb", "train", hub_like) == ["train", "b"]
    assert corpora.documents("ptb", "test", hub_like) == ["validation", "b"]


def test_a_missing_mirror_or_hub_is_told_with_the_knob(tmp_path, monkeypatch):
    import datasets

    for split, knob in (("train", "data.mirror"), ("test", "eval.mirror")):
        with pytest.raises(UserError, match=f"{knob}={tmp_path} has no Salesforce/wikitext"):
            corpora.documents("wikitext2", split, str(tmp_path))

        def unreachable(*_, **__):
            raise ConnectionError("cannot\nreach it")

        monkeypatch.setattr(datasets, "load_dataset", unreachable)
        with pytest.raises(
            UserError, match=f"from the hub .ConnectionError: cannot reach it.: go online, or set {knob}="
        ):
            corpora.documents("c4", split)


def test_the_real_mirror_has_wikitext_and_c4(mirror, monkeypatch, tmp_path):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    rows = corpora.documents("wikitext2", "test", mirror)
    assert len(rows) == 4358 and rows[1] == " = Robert Boulter = \n"
    assert len("\n\n".join(rows)) > 1.2e6
    (stream,) = corpora.documents("c4", "test", mirror)
    assert len(stream) > 1e6


def test_the_real_articles_are_many_and_clean(warm_cache, tokenizer):
    if not assets.is_cached("wiki"):
        pytest.skip("the cache has no wiki: ptq-bench assets --fetch wiki")
    train, test = corpora.documents("wiki", "train"), corpora.documents("wiki", "test")
    characters = {"train": sum(map(len, train)), "test": sum(map(len, test))}
    assert characters["test"] > 400_000 and characters["train"] > 1_800_000  # about 4.6 to a token of SmolLM2
    assert 0.1 < characters["test"] / (characters["train"] + characters["test"]) < 0.2
    for paragraph in "\n\n".join(train + test).split("\n\n"):
        assert len(paragraph) >= wikipedia.SHORTEST and not re.search(r"\{\{|\[\[|<ref|''|\n|  ", paragraph)


def test_the_real_news_and_analogies(warm_cache):
    if not (assets.is_cached("news") and assets.is_cached("analogies")):
        pytest.skip("the cache has no news or analogies: ptq-bench assets --fetch news analogies")
    assert [len(corpora.documents("news", split)) for split in ("train", "test")] == [300, 50]
    found = corpora.analogies()
    assert len(found) == 19544 and len({category for category, *_ in found}) == 14
    assert found[0] == ("capital-common-countries", "Athens", "Greece", "Baghdad", "Iraq")


def test_importing_is_light():
    script = "import sys, harness.data.corpora; print([m for m in ('datasets', 'transformers', 'mwparserfromhell') if m in sys.modules])"  # noqa: E501
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "[]"
    )


def _page(title, namespace, text, extra=""):
    escaped = text.replace("&", "&amp;")
    return f"<page><title>{title}</title><ns>{namespace}</ns>{extra}<revision><text>{escaped}</text></revision></page>"  # noqa: E501


def _parquet(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pandas.DataFrame(columns).to_parquet(path)
