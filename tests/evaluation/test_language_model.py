"""Unusual tokenizers and requests: what is scored is always the whole answer, behind the whole context."""

import math

import pytest
import torch
from lm_eval.api.instance import Instance
from tokenizers import normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from harness.config.groups import Bos
from harness.evaluation.language_model import Scorer, plan
from harness.foundation.errors import UserError
from harness.models import tiny


@pytest.fixture(scope="module")
def model():
    return tiny.tiny_model("llama")[0]


def ask(model, tokenizer, *pairs, bos=Bos.stream, max_length=512):
    asked = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    return Scorer(model, tokenizer, bos, 256, max_length).loglikelihood(asked)


def plainly(model, context: list[int], answer: list[int]) -> float:
    """log p(answer | context) from all logits."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([context + answer])).logits[0, len(context) - 1 : -1].double()
    return logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None]).sum().item()


def ids(text: str) -> list[int]:
    return tiny.byte_tokenizer().encode(text, add_special_tokens=False)


def with_pieces(*pieces):
    """A fine-tune that adds word pieces; their ids are within the tiny models' vocabulary."""
    tokenizer = tiny.byte_tokenizer()
    tokenizer.add_tokens(list(pieces))
    return tokenizer


def ending_in_eos(bos=True):
    tokenizer = tiny.byte_tokenizer()
    before = "<s> " if bos else ""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{before}$A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


OTHERS = [("the river", " was high"), ("the bridge", " fell"), ("", "alpha"), ("one ", "two")]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(("context", "answer"), [("the answer is", " yes"), ("no:", "yes"), ("it is ", "so")])
def test_an_answer_that_a_token_swallows_is_encoded_by_itself(model, context, answer, alone):
    tokenizer = with_pieces("is yes", ":yes", "is so")
    whole = tokenizer.encode(context + answer)
    assert len(whole) <= len(tokenizer.encode(context.rstrip()))  # nothing of the answer would be left
    pairs = [(context, answer)] if alone else [OTHERS[0], (context, answer), *OTHERS[1:]]
    found = ask(model, tokenizer, *pairs)
    kept = context.rstrip()
    expected = plainly(model, [1, *ids(kept)], ids(context[len(kept) :] + answer))
    assert found[pairs.index((context, answer))][0] == pytest.approx(expected, abs=1e-4) and expected < -1
    if not alone:
        others = [score for pair, (score, _) in zip(pairs, found, strict=True) if pair in OTHERS]
        assert others == pytest.approx(
            [score for score, _ in ask(model, tiny.byte_tokenizer(), *OTHERS)], abs=1e-4
        )


def test_an_answer_of_which_a_token_takes_a_part_is_scored_whole(model):
    tokenizer = with_pieces("is yes")
    (found, _), _ = ask(model, tokenizer, ("that is", " yes indeed"), ("that is", " no"))
    assert found == pytest.approx(plainly(model, [1, *ids("that is")], ids(" yes indeed")), abs=1e-4)


@pytest.mark.parametrize("bos", [True, False])
def test_a_tokenizer_that_ends_texts_in_eos_gives_the_scores_of_one_that_does_not(model, bos):
    expected = ask(model, tiny.byte_tokenizer(), *OTHERS, bos=Bos.stream if bos else Bos.none)
    assert ask(model, ending_in_eos(bos), *OTHERS) == expected
    (found, _) = ask(model, ending_in_eos(), OTHERS[0])[0]
    assert found == pytest.approx(plainly(model, [1, *ids(OTHERS[0][0])], ids(OTHERS[0][1])), abs=1e-4)


@pytest.mark.parametrize("kind", ["byte level", "metaspace", "prepended"])
def test_a_blank_before_every_text_is_not_put_before_an_answer(model, kind):
    """add_prefix_space, and LLaMA's first tokenizers."""
    tokenizer = with_pieces("x yes", "xyes")
    backend = tokenizer.backend_tokenizer
    if kind == "byte level":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    elif kind == "metaspace":
        backend.pre_tokenizer = pre_tokenizers.Metaspace("Ġ", prepend_scheme="always", split=False)
    else:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("Ġ"), normalizers.Replace(" ", "Ġ")])
        backend.pre_tokenizer = None
    blank = {" ": ids(" ")}
    before = tokenizer.encode("max")
    assert before[1:2] == blank[" "] and len(before) == 5
    found = ask(model, tokenizer, ("max", " yes"), ("max", "yes"), ("max", " no"), ("max", "no"))
    answers = [ids(" yes"), ids("yes"), ids(" no"), ids("no")]
    assert [score for score, _ in found] == pytest.approx(
        [plainly(model, before, answer) for answer in answers], abs=1e-4
    )


def test_normalised_texts(model):
    """Lower case, and blanks at the ends stripped: an answer of which nothing is left is never chosen."""
    tokenizer = tiny.byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Strip()]
    )
    yes, blank, empty = ask(model, tokenizer, ("Is it", " YES"), ("Is it", "  "), ("Is it", ""))
    assert yes[0] == pytest.approx(plainly(model, [1, *ids("is it")], ids(" yes")), abs=1e-4)
    assert blank == empty == (-math.inf, False)
    assert ask(model, tokenizer, ("Is it", " ")) == [(-math.inf, False)]  # and no error where it is alone


def test_blanks_are_answers_where_the_tokenizer_has_them(model):
    (found, _), (after, _) = ask(model, tiny.byte_tokenizer(), ("a", "\n\n"), ("a ", "\n"))
    assert found == pytest.approx(plainly(model, [1, *ids("a")], ids("\n\n")), abs=1e-4)
    assert after == pytest.approx(plainly(model, [1, *ids("a")], ids(" \n")), abs=1e-4)


@pytest.mark.parametrize("bos", [Bos.none, Bos.stream, Bos.window])
@pytest.mark.parametrize("context", ["", " ", "\n "])
def test_a_context_of_nothing_or_of_blanks_is_a_bos(model, context, bos):
    ((found, _),) = ask(model, tiny.byte_tokenizer(), (context, "alpha"), bos=bos)
    assert found == pytest.approx(plainly(model, [1], ids(context + "alpha")), abs=1e-4)


def test_without_bos_and_eos(model):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny.byte_tokenizer().backend_tokenizer)
    tokenizer.backend_tokenizer.post_processor = None
    ((found, _),) = ask(model, tokenizer, ("the river", " was"))
    assert found == pytest.approx(plainly(model, ids("the river"), ids(" was")), abs=1e-4)
    with pytest.raises(UserError, match="neither BOS nor EOS"):
        ask(model, tokenizer, ("the river", " was"), ("", "x"))
    with pytest.raises(UserError, match=r"model\.bos=window.*no BOS"):
        ask(model, tokenizer, ("the river", " was"), bos=Bos.window)


@pytest.mark.parametrize("bos", [Bos.stream, Bos.window])
def test_a_bos_of_several_tokens(model, bos):
    tokenizer = tiny.byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<pad> <s> $A", special_tokens=[("<pad>", 0), ("<s>", 1)]
    )
    found = ask(model, tokenizer, ("the river", " was"), ("", "x"), ("<pad><s>a", "b"), bos=bos)
    expected = [
        plainly(model, [0, 1, *ids("the river")], ids(" was")),
        plainly(model, [0, 1], ids("x")),
        plainly(model, [0, 1, *ids("a")], ids("b")),  # not put twice
    ]
    assert [score for score, _ in found] == pytest.approx(expected, abs=1e-4)


def test_a_cut_request_keeps_the_bos_that_stands_before_every_window(model):
    context, answer = "the river was high and the bridge", " fell"
    ((found, _),) = ask(model, tiny.byte_tokenizer(), (context, answer), bos=Bos.window, max_length=12)
    assert found == pytest.approx(
        plainly(model, [1, *ids(context)[-7:]], ids(answer)), abs=1e-4
    )  # 1 + 7 + 5 - the last, which is only predicted
    ((found, _),) = ask(model, tiny.byte_tokenizer(), (context, answer), bos=Bos.stream, max_length=12)
    assert found == pytest.approx(plainly(model, ids(context)[-8:], ids(answer)), abs=1e-4)


def test_an_answer_that_does_not_fit_is_told():
    with pytest.raises(UserError, match=r"answer of 9 tokens .* 8 .*eval\.tasks"):
        plan([([1], [3] * 9)], max_length=8)
    assert plan([([1, 4], [3] * 8)], max_length=8)[0].tokens == (4, *[3] * 7)
    assert plan([([1, 4], [3] * 8)], max_length=8, kept=[1])[0].tokens == (1, *[3] * 7)


def test_an_answer_that_begins_another(model):
    pairs = [
        ("the river", " was"),
        ("the river", " was high"),
        ("the river", " w"),
        ("the river was", " high"),
    ]
    expected = [plainly(model, [1, *ids(context)], ids(answer)) for context, answer in pairs]
    assert [score for score, _ in ask(model, tiny.byte_tokenizer(), *pairs)] == pytest.approx(
        expected, abs=1e-4
    )
