"""Windowed perplexity against definitions: brute force in float64, uniform models, the delta method by
resampling.
"""

import math

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness.config.groups import Bos, Dtype, EvalConfig, ModelConfig
from harness.data import corpora
from harness.data.windows import evaluation_windows
from harness.evaluation.evaluate import evaluate
from harness.evaluation.perplexity import mean_of, perplexity_of, scored, window_losses
from harness.evaluation.subject import Subject
from harness.foundation.errors import UserError
from harness.models import tiny
from harness.records.protocol import PerplexityProtocol
from harness.records.record import Metric
from tests.helpers.tiny_models import tokens

VOCABULARY = 97


def llama(seed: int = 0, **changes) -> LlamaForCausalLM:
    """A random model sharp enough that its predictions differ from token to token."""
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.5, **sizes, **changes)
        )
    return model.eval()


def perplexity(model, batch: torch.Tensor, batch_size: int) -> tuple[float, float | None, int]:
    """Perplexity, its standard error over windows, and the number of tokens scored."""
    return *perplexity_of(window_losses(model, batch, batch_size).tolist()), scored(batch)


def windows(count: int, window: int) -> torch.Tensor:
    return torch.randint(VOCABULARY, (count, window), generator=torch.Generator().manual_seed(1))


def brute_force(model, batch: torch.Tensor) -> list[float]:
    """Mean over positions of -log(exp(z_next) / sum exp(z)), everything in float64, one window and one token
    at a time.
    """
    means = []
    for window in batch:
        with torch.no_grad():
            logits = model.double()(input_ids=window[None]).logits[0].numpy()
        assert logits.dtype == np.float64
        weights = np.exp(logits[:-1] - logits[:-1].max(1, keepdims=True))
        chances = [row[token] / row.sum() for row, token in zip(weights, window[1:], strict=True)]
        means.append(-np.mean(np.log(chances)))
    model.float()
    return means


def test_equals_brute_force_in_float64():
    model, batch = llama(), windows(5, 33)
    expected = brute_force(model, batch)
    value, stderr, tokens = perplexity(model, batch, batch_size=2)
    assert window_losses(model, batch, 2).numpy() == pytest.approx(expected, rel=2e-6)
    assert value == pytest.approx(np.exp(np.mean(expected)), rel=2e-6)
    assert stderr == pytest.approx(value * np.std(expected, ddof=1) / math.sqrt(5), rel=1e-4)
    assert tokens == 5 * 32


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary():
    model = llama()
    model.lm_head.weight.data.zero_()
    value, stderr, _ = perplexity(model, windows(4, 16), batch_size=4)
    assert value == pytest.approx(VOCABULARY, rel=1e-6)
    assert stderr == pytest.approx(0, abs=1e-5)


def test_neither_batches_nor_chunks_matter(monkeypatch):
    model, batch = llama(), windows(7, 21)
    expected = window_losses(model, batch, 7)
    monkeypatch.setattr("harness.evaluation.perplexity.LOSS_TOKENS", 6)
    for size in (1, 3):
        torch.testing.assert_close(window_losses(model, batch, size), expected, rtol=1e-6, atol=0)
    monkeypatch.setattr("harness.evaluation.perplexity.LOGITS_AT_ONCE", 2 * 21 * VOCABULARY)
    sizes = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    torch.testing.assert_close(window_losses(model, batch, 7), expected, rtol=1e-6, atol=0)
    assert sizes == [2, 2, 2, 1]


def test_windows_are_scored_apart():
    model, batch = llama(), windows(6, 12)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(
        window_losses(model, batch[order], 4), window_losses(model, batch, 4)[order], rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("bos", list(Bos))
def test_the_model_sees_the_windows_that_the_policy_made(bos):
    model, tokenizer = tiny.tiny_model("llama")
    text = corpora.documents("synthetic", "test")
    expected = evaluation_windows(text, tokenizer, 32, 5, bos)
    seen, caches = [], []

    def watch(module, args, kwargs):
        seen.append(kwargs["input_ids"])
        caches.append(kwargs["use_cache"])

    model.register_forward_pre_hook(watch, with_kwargs=True)
    subject = Subject(model, tokenizer, bos, "float32")
    found = evaluate(subject, quick(corpora=["synthetic"], windows=5))
    assert torch.equal(torch.cat(seen), expected)
    assert not any(caches)
    assert f"bos={bos.value}" in str(found.metrics["perplexity/synthetic"].protocol)


def test_half_precision_logits_are_normalised_in_float32():
    model = llama().bfloat16()
    batch = windows(3, 17)
    with torch.no_grad():
        logits = model(input_ids=batch).logits[:, :-1].float()
    expected = -logits.log_softmax(-1).gather(-1, batch[:, 1:, None]).double().mean((1, 2))
    torch.testing.assert_close(window_losses(model, batch, 3), expected, rtol=1e-6, atol=0)


def test_a_diverged_model_is_infinitely_perplexed():
    model = llama()
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = torch.nan
    assert perplexity(model, windows(3, 8), batch_size=3) == (math.inf, None, 21)
    assert window_losses(model, windows(3, 8), 3).tolist() == [math.inf] * 3
    assert perplexity_of([800.0, 900.0]) == (math.inf, None)  # exp would overflow


def test_standard_error_is_that_of_resampled_corpora():
    generator = np.random.default_rng(0)
    losses = generator.normal(3.0, 0.3, size=200)
    resampled = [np.exp(generator.choice(losses, 200).mean()) for _ in range(4000)]
    value, stderr = perplexity_of(losses.tolist())
    assert value == pytest.approx(np.mean(resampled), rel=0.005)
    assert stderr == pytest.approx(np.std(resampled), rel=0.05)


def test_standard_error_of_shares_is_binomial():
    share, stderr = mean_of([1.0] * 30 + [0.0] * 70)
    assert share == pytest.approx(0.3)
    assert stderr == pytest.approx(math.sqrt(0.3 * 0.7 / 99))
    assert mean_of([1.0]) == (1.0, None)


def test_evaluating_leaves_model_and_generators_alone():
    model, batch = llama(attention_dropout=0.5), windows(2, 8)
    expected, state = window_losses(model, batch, 2), torch.get_rng_state()
    model.train()
    assert torch.equal(window_losses(model, batch, 2), expected)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def quick(**changes) -> EvalConfig:
    values = {
        "name": "x",
        "corpora": [],
        "window": 32,
        "windows": 3,
        "tasks": [],
        "limit": 4,
        "seed": 0,
        "batch_size": 2,
    }
    return EvalConfig(**values | {"mirror": None} | changes)


def test_evaluation_carries_protocol_items_and_progress():
    model, tokenizer = tiny.tiny_model("gemma3")
    stages = []
    subject = Subject(model, tokenizer, Bos.window, "float32")
    found = evaluate(subject, quick(corpora=["synthetic"]), lambda *stage: stages.append(stage))
    metric = found.metrics["perplexity/synthetic"]
    losses = window_losses(
        model, evaluation_windows(corpora.documents("synthetic", "test"), tokenizer, 32, 3, Bos.window), 2
    )
    assert found.items == {"perplexity/synthetic": losses.tolist()}
    assert metric.value == pytest.approx(losses.mean().exp().item())
    digest = corpora.text_sha256(corpora.documents("synthetic", "test"))[:8]
    protocol = PerplexityProtocol("synthetic", 3, 32, "window", "float32", 93, digest)
    assert metric == Metric(metric.value, metric.stderr, protocol, 93)
    assert str(protocol) == (
        "synthetic/test, 3 windows of 32 tokens, disjoint, bos=window, float32, 93 tokens scored, "
        f"text {digest}"
    )
    assert stages == [("perplexity synthetic", 2, 3), ("perplexity synthetic", 3, 3)]


def test_a_protocol_differs_whenever_the_number_may():
    model, tokenizer = tiny.tiny_model("llama")

    def protocol(bos=Bos.stream, dtype="float32", **changes):
        found = evaluate(Subject(model, tokenizer, bos, dtype), quick(corpora=["synthetic"], **changes))
        return str(found.metrics["perplexity/synthetic"].protocol)

    variants = [
        protocol(),
        protocol(window=31),
        protocol(windows=2),
        protocol(Bos.none),
        protocol(dtype="bfloat16"),
    ]
    assert len(set(variants)) == len(variants)
    assert protocol(batch_size=1) == variants[0]


def test_an_unknown_corpus_is_named():
    model, tokenizer = tiny.tiny_model("llama")
    with pytest.raises(UserError, match="wikitext3"):
        evaluate(Subject(model, tokenizer, Bos.none, "float32"), quick(corpora=["wikitext3"]))


@pytest.mark.parametrize("family", ["bloom", "falcon_new", "gemma3_vision", "gpt_neox", "opt"])
def test_families_agree_with_their_own_loss(family):
    model, _ = tiny.tiny_model(family)
    batch = tokens(3, 40)
    with torch.no_grad():
        expected = model(input_ids=batch, labels=batch).loss
    assert window_losses(model, batch, 2).mean().item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_smollm2_on_wikitext2(warm_cache, mirror):
    """30.6403 was measured apart from this code, on the first 8 windows of 512 tokens; the first 64 gave
    29.9345 both ways.
    """
    from harness.data import assets
    from harness.models.loading import load_model

    if not assets.is_cached("smollm2-135m"):
        pytest.skip("smollm2-135m is not in the cache")
    loaded = load_model(
        ModelConfig("smollm2-135m", "asset:smollm2-135m", None, Dtype.float32, Bos.stream, 4), "cpu"
    )
    text = corpora.documents("wikitext2", "test", mirror)
    batch = evaluation_windows(text, loaded.tokenizer, 512, 8, Bos.stream)
    value, _, tokens = perplexity(loaded.model, batch, 4)
    assert value == pytest.approx(30.6403, abs=1e-3)
    assert tokens == 8 * 511


def test_protocols_say_how_many_windows_there_were(monkeypatch):
    """Of each corpus as many as are asked for, and all there are where it has fewer."""
    texts = {"synthetic": ["a" * 95], "news": ["b" * 200], "wiki": ["c" * 50]}
    monkeypatch.setattr(corpora, "documents", lambda name, split, mirror=None: texts[name])
    counts = {"synthetic": 100, "news": 3, "wiki": None}
    config = EvalConfig("x", list(texts), 10, counts, [], None, 0, 4, None)
    found = evaluate(Subject(*tiny.tiny_model("llama"), Bos.none, "float32"), config)
    expected = {"synthetic": 9, "news": 3, "wiki": 5}
    assert {name: found.metrics[f"perplexity/{name}"].protocol.windows for name in texts} == expected
    assert {name: len(found.items[f"perplexity/{name}"]) for name in texts} == expected
