"""Zero-shot tasks: scores against definitions and against lm-eval's own wrapper, sampling, and no side
effects.
"""

import logging
import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance

from harness.config.groups import Bos, Dtype, EvalConfig, ModelConfig
from harness.data import assets, corpora
from harness.evaluation import embedded_tasks, language_model, tasks
from harness.evaluation.evaluate import evaluate
from harness.evaluation.language_model import Scorer, plan
from harness.evaluation.subject import Subject
from harness.evaluation.tasks import STOCK, TASKS, overlay, run_task, sample
from harness.foundation.errors import UserError
from harness.models import tiny

COUNTRIES = [
    "Athens Greece",
    "Baghdad Iraq",
    "Berlin Germany",
    "Cairo Egypt",
    "Hanoi Vietnam",
    "Oslo Norway",
    "Paris France",
    "Rome Italy",
]
PLURALS = ["bird birds", "bottle bottles", "car cars", "cat cats", "cow cows", "dog dogs", "donkey donkeys"]
PAIRS = {"capital": [pair.split() for pair in COUNTRIES], "plural": [pair.split() for pair in PLURALS]}
NEWS = [
    " ".join(
        f"{word}{number % 7}x the river was high and the bridge over the river stayed closed."
        for number in range(5)
    )
    for word in ("alpha", "beta", "gamma", "delta")
]


@pytest.fixture
def texts(monkeypatch):
    """Small stand-ins for the embedded texts."""
    questions = [
        (category, *x, *y) for category, pairs in PAIRS.items() for x in pairs for y in pairs if x != y
    ]
    monkeypatch.setattr(corpora, "analogies", lambda: questions)
    monkeypatch.setattr(
        corpora, "documents", lambda name, split, mirror=None: {("news", "test"): NEWS}[name, split]
    )


def ask(name="analogies", model=None, bos=Bos.stream, batch_tokens=512, **changes):
    known, tokenizer = tiny.tiny_model("llama")
    config = quick(**{"limit": None, "batch_size": 1, "window": batch_tokens} | changes)
    return run_task(name, Subject(model or known, tokenizer, bos, "float32"), config)


def requests(seed: int = 0) -> list[Instance]:
    """Pairs with shared contexts, continuations of several lengths, contexts that begin others, and an empty
    context.
    """
    words, generator = (
        ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"],
        random.Random(seed),
    )
    contexts = [" ".join(generator.choices(words, k=generator.randint(2, 9))) for _ in range(6)]
    pairs = [
        (context, " " + " ".join(generator.choices(words, k=generator.randint(1, 3))))
        for context in contexts
        for _ in range(3)
    ]
    pairs += [(pairs[0][0] + pairs[0][1], " omega"), ("", "alpha beta"), (contexts[0] + "  ", "eta")]
    return [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=index)
        for index, pair in enumerate(pairs)
    ]


def own_wrapper(model, tokenizer, asked: list[Instance], max_length: int):
    pytest.importorskip("accelerate", reason="lm-eval's own wrapper needs accelerate")
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, max_length=max_length).loglikelihood(
        asked, disable_tqdm=True
    )


# --- the scorer


@pytest.mark.parametrize(
    ("family", "bos"),
    [
        ("bloom", Bos.none),
        ("falcon_old", Bos.stream),
        ("gemma3_vision", Bos.window),
        ("opt", Bos.stream),
        *(("llama", bos) for bos in (Bos.none, Bos.stream, Bos.window)),
    ],
)
def test_scores_equal_their_definition(family, bos):
    """log p(continuation | context), every request in a forward pass of its own and with all logits."""
    model, tokenizer = tiny.tiny_model(family)
    asked = [request for request in requests() if request.args[0]]
    for request, (found, greedy) in zip(
        asked, Scorer(model, tokenizer, bos, 128, 512).loglikelihood(asked), strict=True
    ):
        context, continuation = request.args
        special = {Bos.none: [], Bos.stream: [1], Bos.window: [1]}[bos]
        whole = torch.tensor([special + tokenizer.encode(context + continuation, add_special_tokens=False)])
        length = len(tokenizer.encode(context.rstrip(), add_special_tokens=False)) + len(special)
        with torch.no_grad():
            logits = model(input_ids=whole).logits[0, length - 1 : -1].double()
        assert found == pytest.approx(
            logits.log_softmax(-1).gather(-1, whole[0, length:, None]).sum().item(), abs=1e-4
        )
        assert greedy == torch.equal(logits.argmax(-1), whole[0, length:])


@pytest.mark.parametrize("max_length", [512, 30])
@pytest.mark.parametrize("family", sorted({"bloom", "gemma3", "gpt_neox", "llama", "qwen2"}))
def test_scores_equal_those_of_lm_evals_wrapper(family, max_length):
    model, tokenizer = tiny.tiny_model(family)
    expected = own_wrapper(*tiny.tiny_model(family), requests(), max_length)
    scorer = Scorer(model, tokenizer, Bos.stream, 128, max_length)
    found = scorer.loglikelihood(requests())
    assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert bool(scorer.truncated) == (max_length == 30)


def test_batches_do_not_matter(monkeypatch):
    model, tokenizer = tiny.tiny_model("llama")
    expected = [score for score, _ in Scorer(model, tokenizer, Bos.stream, 1, 512).loglikelihood(requests())]
    wide = [score for score, _ in Scorer(model, tokenizer, Bos.stream, 10_000, 512).loglikelihood(requests())]
    monkeypatch.setattr(language_model, "LOGITS_AT_ONCE", 5000)
    small = [
        score for score, _ in Scorer(model, tokenizer, Bos.stream, 10_000, 512).loglikelihood(requests())
    ]
    assert wide == pytest.approx(expected, abs=1e-4)
    assert small == pytest.approx(expected, abs=1e-4)


def test_a_beginning_shares_the_row_of_what_it_begins():
    rows = plan(
        [([1, 2], [3]), ([1, 2], [3, 4, 5]), ([1, 2, 3, 4], [9, 9]), ([1, 7], [3]), ([1, 2], [8])],
        max_length=16,
    )
    assert [row.tokens for row in rows] == [(1, 2, 3, 4, 9), (1, 7)]
    assert [sorted(read[0] for read in row.reads) for row in rows] == [[0, 1, 2, 4], [3]]
    assert [row.positions() for row in rows] == [{1, 2, 3, 4}, {1}]


# --- embedded tasks


def test_an_analogy_has_one_right_answer_among_its_kind(texts):
    items = embedded_tasks.analogies()
    right = {c: d for pairs in PAIRS.values() for c, d in pairs}
    assert len(items) == len(right)  # every pair is asked for once
    for item in items:
        a, b, c = (item["question"].split()[index] for index in (0, 3, 5))
        kind = {word for pairs in PAIRS.values() if [a, b] in pairs for _, word in pairs}
        assert item["question"] == f"{a} is to {b} as {c} is to"
        assert right[a] == b and a != c
        assert item["choices"][item["answer"]] == right[c]
        assert len(set(item["choices"])) == 4 and set(item["choices"]) <= kind - {b}
    assert len({item["answer"] for item in items}) == 4
    assert items == embedded_tasks.analogies()


def test_a_cloze_passage_holds_its_last_word(texts):
    items = embedded_tasks.news_cloze()
    assert {item["article"] for item in items} == set(range(len(NEWS)))
    for item in items:
        assert NEWS[item["article"]].startswith(item["passage"] + item["word"])
        assert len(item["passage"].split()) >= 20
        assert item["word"][1:] in item["passage"].replace(".", "").split()
        assert len(item["word"]) >= 5 and item["word"][0] == " "


class Oracle(Scorer):
    """Prefers, or avoids, the continuations it was told."""

    liked, answer = frozenset(), 0.0

    def loglikelihood(self, requests, disable_tqdm=True):
        return [
            (self.answer if request.args[1] in self.liked else -1.0, request.args[1] in self.liked)
            for request in requests
        ]


@pytest.mark.parametrize(("answer", "expected"), [(0.0, 1.0), (-2.0, 0.0)])
def test_accuracy_is_the_share_of_right_answers(texts, monkeypatch, answer, expected):
    """One liked word per item: the items of each category are asked alone, so that no right answer is
    another's wrong one.
    """
    for index, item in enumerate(embedded_tasks.analogies()):
        monkeypatch.setattr(tasks, "sample", lambda *_, index=index: [index])
        monkeypatch.setattr(Oracle, "liked", frozenset({f" {item['choices'][item['answer']]}"}))
        monkeypatch.setattr(Oracle, "answer", answer)
        monkeypatch.setattr(language_model, "Scorer", Oracle)
        assert ask().items == {"acc": [expected]}


def test_cloze_counts_greedy_words(texts, monkeypatch):
    items = embedded_tasks.news_cloze()
    monkeypatch.setattr(Oracle, "liked", frozenset({" river"}))
    monkeypatch.setattr(language_model, "Scorer", Oracle)
    found = ask("news_cloze")
    assert found.items == {"acc": [float(item["word"] == " river") for item in items]}
    assert found.protocol.available == found.asked == len(items)


def test_a_model_without_numbers_is_wrong(texts):
    model, _ = tiny.tiny_model("llama")
    model.lm_head.weight.data.fill_(torch.nan)
    for task in ("analogies", "news_cloze"):
        assert set(ask(task, model).items["acc"]) == {0.0}


# --- which items


def test_samples_are_seeded_nested_and_ascending():
    few, many = sample("piqa", range(1000), 20, seed=3), sample("piqa", range(1000), 50, seed=3)
    assert few == sample("piqa", range(1000), 20, seed=3) == sorted(set(few))
    assert set(few) < set(many) and len(many) == 50
    assert few != sample("piqa", range(1000), 20, seed=4) != sample("boolq", range(1000), 20, seed=4)
    assert sample("piqa", range(7), None, seed=3) == sample("piqa", range(7), 9, seed=3) == list(range(7))


def test_samples_are_uniform():
    """Over many seeds every item is drawn equally often: chi-square of 40 cells within five standard
    deviations.
    """
    counts = np.zeros(40)
    for seed in range(500):
        counts[sample("piqa", range(40), 10, seed)] += 1
    assert abs(((counts - 125) ** 2 / 125).sum() - 39 * 0.75) < 5 * math.sqrt(2 * 39)


def test_samples_take_whole_groups():
    groups = [index // 6 for index in range(60)]
    chosen = sample("news_cloze", groups, 20, seed=0)
    sizes = {group: sum(groups[index] == group for index in chosen) for group in set(groups)}
    assert sorted(sizes.values()) == [0] * 6 + [2, 6, 6, 6]


def test_the_same_seed_asks_the_same_texts(texts):
    first, again, other = ask(limit=5), ask(limit=5), ask(limit=5, seed=1)
    assert first == again
    assert first.protocol.text != other.protocol.text
    assert (first.asked, first.protocol.available) == (5, len(COUNTRIES) + len(PLURALS))


# --- nothing else changes


def test_generators_stay_where_they_were(texts, monkeypatch):
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    load = tasks._load

    def disturbing(*arguments):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        return load(*arguments)

    monkeypatch.setattr(tasks, "_load", disturbing)
    ask(limit=2)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected


def test_a_launchers_environment_does_not_matter(texts, monkeypatch):
    expected = ask(limit=4)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert ask(limit=4) == expected


def test_a_replaced_head_of_a_tied_model_is_kept(texts):
    model, _ = tiny.tiny_model("qwen2")
    assert model.config.tie_word_embeddings and model.lm_head.weight is model.model.embed_tokens.weight
    head = torch.nn.Linear(*reversed(model.lm_head.weight.shape), bias=False)
    model.lm_head = head
    weight = head.weight.detach().clone()
    config = model.config.to_dict()
    ask(model=model, limit=4)
    assert model.lm_head is head and torch.equal(head.weight, weight)
    assert model.config.to_dict() == config


def test_a_foreign_quantization_config_and_a_tokenizer_without_padding_do_no_harm(texts):
    model, tokenizer = tiny.tiny_model("llama")
    model.config.quantization_config = {"quant_method": "ours", "bits": 3}
    tokenizer.pad_token = None
    size = len(tokenizer)
    run_task("analogies", Subject(model, tokenizer, Bos.stream, "float32"), quick(limit=4))
    assert tokenizer.pad_token is None and len(tokenizer) == size


def test_nothing_is_printed_and_nothing_stays_silenced(texts, capfd):
    import datasets
    import lm_eval.api.task

    bars, level, tqdm = (
        datasets.are_progress_bars_disabled(),
        logging.getLogger("lm_eval").level,
        lm_eval.api.task.tqdm,
    )
    capfd.readouterr()
    ask(limit=3)
    assert capfd.readouterr() == ("", "")
    assert (
        datasets.are_progress_bars_disabled(),
        logging.getLogger("lm_eval").level,
        lm_eval.api.task.tqdm,
    ) == (bars, level, tqdm)


# --- stock tasks


@pytest.mark.parametrize("name", STOCK)
def test_our_table_names_the_data_sets_that_lm_eval_names(name, tmp_path):
    from lm_eval.tasks import TaskManager

    (tmp_path / "plain").mkdir(), (tmp_path / "mirror").mkdir()
    (tmp_path / "plain" / "task.yaml").write_text(overlay(name, None))
    (tmp_path / "mirror" / "task.yaml").write_text(overlay(name, "somewhere"))
    plain = TaskManager(include_path=tmp_path / "plain", include_defaults=False).task_index[name].cfg
    mirrored = TaskManager(include_path=tmp_path / "mirror", include_defaults=False).task_index[name].cfg
    assert plain["dataset_path"] == STOCK[name][1]
    assert mirrored == plain | {"dataset_path": str(Path("somewhere", STOCK[name][1]).absolute())}
    assert {metric["metric"] for metric in plain["metric_list"]} <= set(tasks.METRICS)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "hellaswag" else ()) for name in STOCK]
)
def test_stock_tasks_from_the_mirror(name, mirror, tmp_path, monkeypatch):
    import datasets

    if not Path(mirror, STOCK[name][1]).is_dir():
        pytest.skip(f"the mirror has no {STOCK[name][1]}")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    found = ask(name, limit=4, mirror=os.path.relpath(mirror))
    assert found.asked == 4 < found.protocol.available
    assert ("acc_norm" in found.items) == (name in {"piqa", "arc_easy", "arc_challenge", "hellaswag"})
    assert set(found.items["acc"]) <= {0.0, 1.0}


def test_an_unknown_task_is_named_with_those_there_are():
    with pytest.raises(UserError, match="piqua") as error:
        ask("piqua")
    assert all(task in str(error.value) for task in TASKS)


def test_a_mirror_without_the_data_is_named(tmp_path):
    with pytest.raises(UserError, match=r"eval\.mirror=.*baber/piqa"):
        ask("piqa", mirror=str(tmp_path))


def test_an_unreachable_hub_names_the_mirror_knob(monkeypatch):
    import datasets

    def unreachable(**kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match=r"baber/piqa from the hub.*no route to host.*eval\.mirror") as error:
        ask("piqa")
    assert "\n" not in str(error.value)


# --- through evaluate()


def quick(**changes) -> EvalConfig:
    values = {
        "name": "x",
        "corpora": [],
        "window": 64,
        "windows": 1,
        "tasks": ["news_cloze"],
        "limit": 7,
        "seed": 0,
        "batch_size": 4,
    }
    return EvalConfig(**values | {"mirror": None} | changes)


def test_evaluation_carries_protocol_items_and_progress(texts):
    model, tokenizer = tiny.tiny_model("llama")
    stages = []
    subject = Subject(model, tokenizer, Bos.none, "bfloat16")
    found = evaluate(subject, quick(seed=5), lambda *stage: stages.append(stage))
    scores = ask("news_cloze", limit=7, seed=5, bos=Bos.none)
    metric = found.metrics["acc/news_cloze"]
    assert found.items == {"acc/news_cloze": scores.items["acc"]} and metric.n == 7
    assert str(metric.protocol) == (
        f"lm-eval {tasks.version()}, news_cloze v1, 0-shot, 7 of {scores.protocol.available} items, seed 5, "
        f"bos=none, bfloat16, text {scores.protocol.text}"
    )
    assert {stage for stage, *_ in stages} == {"news_cloze"} and stages[-1][1] == stages[-1][2]


def test_all_items_are_the_same_protocol_under_every_seed(texts):
    model, tokenizer = tiny.tiny_model("llama")
    subject = Subject(model, tokenizer, Bos.none, "f")
    found = [evaluate(subject, quick(limit=None, seed=seed)) for seed in (0, 1)]
    assert len({str(evaluation.metrics["acc/news_cloze"].protocol) for evaluation in found}) == 1


def test_names_are_checked_before_anything_is_computed():
    with pytest.raises(UserError, match="piqua"):
        evaluate(Subject(None, None, Bos.none, "float32"), quick(tasks=["news_cloze", "piqua"]))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_smollm2_is_far_above_chance(warm_cache):
    """Measured with all items: analogies 0.78 (chance 0.25), news_cloze 0.32 (chance: one word of the
    language).
    """
    from harness.models.loading import load_model

    if not assets.is_cached("smollm2-135m"):
        pytest.skip("smollm2-135m is not in the cache")
    loaded = load_model(
        ModelConfig("smollm2-135m", "asset:smollm2-135m", None, Dtype.float32, Bos.stream, 4), "cpu"
    )
    config = quick(tasks=["analogies", "news_cloze"], limit=60, batch_size=8, window=512)
    found = evaluate(Subject(loaded.model, loaded.tokenizer, Bos.stream, "float32"), config)
    assert found.metrics["acc/analogies"].value > 0.55
    assert found.metrics["acc/news_cloze"].value > 0.15


@pytest.mark.gpu
def test_a_gpu_gives_the_same_scores():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    model, tokenizer = tiny.tiny_model("gemma3")
    expected = Scorer(model, tokenizer, Bos.stream, 128, 512).loglikelihood(requests())
    found = Scorer(model.cuda(), tokenizer, Bos.stream, 128, 512).loglikelihood(requests())
    assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=1e-2)
