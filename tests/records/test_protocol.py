"""Protocols: a sentence and its fields say the same, in records of this version and of former ones."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.records.protocol import OtherProtocol, PerplexityProtocol, TaskProtocol, parse
from harness.records.record import Metric

RECORDS = Path(__file__).parents[2] / "results" / "published"
ALL = {"asked": None, "available": 50, "seed": None}
SOME = {"asked": 50, "available": 2376, "seed": 3}
TEXT = "12345678"
TASK = {"lm_eval": "0.4.13", "task": "arc_easy", "version": "1.0", "bos": "stream", "dtype": "float32"}
TASK |= {"text": TEXT}
SENTENCES = {
    "wiki/test, 16 windows of 512 tokens, disjoint, bos=stream, float32, 8176 tokens scored, text 12345678":
        PerplexityProtocol("wiki", 16, 512, "stream", "float32", 8176, TEXT),
    "c4/test, 1 windows of 2048 tokens, disjoint, bos=none, bfloat16, 2047 tokens scored":
        PerplexityProtocol("c4", 1, 2048, "none", "bfloat16", 2047, None),
    "lm-eval 0.4.13, arc_easy v1.0, 0-shot, all 50 items, bos=stream, float32, text 12345678":
        TaskProtocol(**TASK, **ALL),
    "lm-eval 0.4.13, arc_easy v1.0, 0-shot, 50 of 2376 items, seed 3, bos=stream, float32, text 12345678":
        TaskProtocol(**TASK, **SOME),
    "lm-eval 0.4.13, arc_easy v1.0, 0-shot, 50 of 2376 items, seed 3, bos=stream, float32, text 12345678, "
    "2 requests cut to 1024 tokens": TaskProtocol(**TASK, **SOME, truncated=2, max_length=1024),
    "windows of 2048 tokens": OtherProtocol("windows of 2048 tokens"),
    "": OtherProtocol(""),
}  # fmt: skip


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_and_its_fields_say_the_same(sentence):
    protocol = SENTENCES[sentence]
    assert (parse(sentence), str(protocol)) == (protocol, sentence)


@pytest.mark.parametrize(
    "sentence", [*SENTENCES, "a/test, 016 windows of 512 tokens, disjoint, bos=none, f, 9 tokens scored"]
)
def test_no_sentence_changes_by_being_understood(sentence):
    assert str(parse(sentence)) == sentence
    assert ", ".join(parse(sentence).phrases()) == sentence


def test_every_published_sentence_is_understood():
    for path in RECORDS.glob("runs/*/record.json"):
        record = json.loads(path.read_bytes())
        for name, metric in (record["metrics"] | (record["baseline"] or record)["metrics"]).items():
            kind = PerplexityProtocol if name.startswith("perplexity/") else TaskProtocol
            protocol = parse(metric["protocol"])
            assert type(protocol) is kind and str(protocol) == metric["protocol"]


def test_a_text_read_whole_is_told_apart_by_more_than_its_tokens():
    protocol, other = (
        PerplexityProtocol("c4", count, 512, "none", "f", 511 * count, "ab") for count in (3, 4)
    )
    assert str(protocol.without_counts()) == str(other.without_counts())
    assert (
        str(protocol.without_counts())
        == "c4/test, windows of 512 tokens, disjoint, bos=none, f, tokens scored, text ab"
    )
    assert parse(str(protocol.without_counts())) == protocol.without_counts()


@pytest.mark.parametrize("protocol", SENTENCES.values())
def test_a_record_holds_both_and_needs_only_the_sentence(protocol):
    metric = Metric(1.5, None, protocol, 7)
    entry = json.loads(json.dumps(metric.entry()))
    assert entry["protocol"] == str(protocol) and entry["protocol_fields"] == asdict(protocol)
    del entry["protocol_fields"]
    assert Metric.of(entry) == metric
