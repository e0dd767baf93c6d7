"""Ids beyond the embedding, known before a text is encoded."""

import pytest
from transformers import AddedToken

from harness.models import tiny
from harness.models.vocabulary import beyond_embedding

ROWS = len(tiny.byte_tokenizer())


def more(*tokens, **special):
    tokenizer = tiny.byte_tokenizer()
    tokenizer.add_tokens(list(tokens))
    tokenizer.add_special_tokens(special)
    return tokenizer


@pytest.mark.parametrize("rows", [ROWS, ROWS + 1, 2 * ROWS])
def test_an_embedding_as_long_as_the_vocabulary_or_longer_is_enough(rows):
    assert beyond_embedding(tiny.byte_tokenizer(), rows) is None


@pytest.mark.parametrize("rows", [ROWS - 1, 100, 1])
def test_a_tokenizer_of_another_model_is_noticed(rows):
    assert f"embedding has {rows} rows" in (reason := beyond_embedding(tiny.byte_tokenizer(), rows)) or (
        f"beyond the {rows} rows" in reason
    )


def test_a_token_that_a_text_can_become_needs_a_row():
    reason = beyond_embedding(more("word", "piece"), ROWS)
    assert f"2 tokens such as 'word' (id {ROWS}) are beyond the {ROWS} rows" in reason


def test_special_tokens_that_no_text_of_ours_holds_need_none():
    assert beyond_embedding(more(AddedToken("<mask>", special=True)), ROWS) is None
    assert beyond_embedding(more(eos_token="<end>"), ROWS) is None


def test_what_stands_before_texts_needs_a_row():
    assert f"'<begin>' (id {ROWS}) stands before texts" in beyond_embedding(more(bos_token="<begin>"), ROWS)


def test_without_a_bos_the_eos_stands_before_an_empty_context():
    tokenizer = more(eos_token="<end>")
    tokenizer.bos_token = None
    assert f"'<end>' (id {ROWS}) stands before texts" in beyond_embedding(tokenizer, ROWS)
