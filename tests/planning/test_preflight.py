"""What is refused before anything runs, with every reason in one go, and what is only noted."""

import errno
import tempfile
from collections import namedtuple
from dataclasses import replace

import pytest

from harness.foundation import resources
from harness.foundation.errors import UserError
from harness.models.tiny import tiny_model
from harness.planning import findings as findings_module
from harness.planning.findings import BAD, NOTE, findings, libraries
from harness.planning.preflight import check
from tests.helpers.planned_points import config, of_model

GIB = 2**30


@pytest.fixture
def found(tmp_path):
    """Findings of configurations, by level; texts in one string."""

    def of(*configs) -> dict[str, str]:
        listed = findings([replace(one, paths=replace(one.paths, results=str(tmp_path))) for one in configs])
        return {level: "\n".join(text for at, text in listed if at == level) for level in (NOTE, BAD)}

    return of


def test_nothing_to_find(found):
    assert found(config("data.samples=64", "data.window=64")) == {NOTE: "", BAD: ""}


def test_all_layers_that_a_group_does_not_fit_are_named_at_once():
    with pytest.raises(UserError) as refused:
        check(config("scheme=w4", "scheme.group_size=96"))
    text = str(refused.value)
    assert (
        "21 of tiny-llama's 21 linears" in text
        and "64: 18 layers such as model.layers.0" in text
        and "128: 3 layers" in text
    )
    check(config("scheme=w4", "scheme.group_size=32"))


def test_too_little_calibration_is_noted_with_numbers(found):
    text = found(config("data.samples=2", "data.window=32"))[NOTE]
    assert "64 tokens" in text and "128 columns" in text and "data.samples" in text
    assert not found(config("data.samples=2", "data.window=64"))[NOTE]
    assert not found(config("method=float", "data.samples=1"))[NOTE]


@pytest.mark.parametrize("free, level", [(10 * GIB, None), (520 * 2**20, NOTE), (100 * 2**20, BAD)])
def test_memory_is_refused_only_beyond_the_tolerance_of_the_estimate(found, monkeypatch, free, level):
    monkeypatch.setattr(findings_module, "free_memory", lambda: free)
    said = found(config("data.samples=64"))
    for at in (NOTE, BAD):
        assert ("eval.batch_size" in said[at] and "model.dtype" in said[at]) == (at == level)


def test_gpu_memory_is_that_of_the_roomiest_gpu(found, monkeypatch):
    monkeypatch.setattr(findings_module, "device_name", lambda word: "cuda")
    monkeypatch.setattr(
        findings_module, "free_gpu_memory", lambda: [("small", 2**10, 2**30), ("large", 2**40, 2**40)]
    )
    assert "GPU" not in found(config("data.samples=64"))[BAD]
    monkeypatch.setattr(findings_module, "free_gpu_memory", lambda: [("small", 2**10, 2**30)])
    assert "of GPU memory, 0.0 are free" in found(config("data.samples=64"))[BAD]


def test_disk_needs_room_for_every_checkpoint(found, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: usage(2**40, 0, 100 * 2**20))
    one = config("data.samples=64", "save=true")
    assert not found(one)[BAD]
    many = [replace(one, seed=seed) for seed in range(60)]
    assert "paths.results" in found(*many)[BAD] and "free" in found(*many)[BAD]


def test_a_place_that_cannot_be_written_is_refused(found, monkeypatch):
    def refuse(**options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    one = config()
    assert "paths.results" in found(one)[BAD] and "PTQ_BENCH_CACHE" in found(one)[BAD]
    with pytest.raises(UserError, match="Read-only file system"):
        check(one)


def test_texts_and_models_that_are_not_here(found, monkeypatch, tmp_path):
    of = config("data.samples=64", "data=wiki", "eval.tasks=[piqa]", "eval.corpora=[ptb]")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    said = found(of, of_model(of, "nobody/nothing"))
    assert (
        not said[BAD] and "wiki: not here yet" in said[NOTE] and "nobody/nothing: not here yet" in said[NOTE]
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = found(of, of_model(of, "nobody/nothing"))[BAD]
    assert (
        "piqa: baber/piqa" in said
        and "ptb: ptb-text-only" in said
        and "eval.mirror" in said
        and "nobody/nothing" in said
    )
    (tmp_path / "mirror" / "baber" / "piqa").mkdir(parents=True)
    mirrored = replace(of, eval=replace(of.eval, mirror=str(tmp_path / "mirror")))
    said = found(mirrored)[BAD]
    assert "piqa" not in said and f"eval.mirror={tmp_path / 'mirror'}: has no directory ptb-text-only" in said
    assert "asset:smollm2-135m: not here yet" in found(of_model(of, "asset:smollm2-135m"))[NOTE]


def test_a_model_without_a_tokenizer_is_refused(found, tmp_path):
    model, tokenizer = tiny_model("llama")
    model.config.save_pretrained(tmp_path / "model")
    of = of_model(config("data.samples=64"), str(tmp_path / "model"))
    assert "no tokenizer" in found(of)[BAD]
    tokenizer.save_pretrained(tmp_path / "model")
    assert not found(of)[BAD]


def test_libraries_out_of_bounds_are_noted_and_missing_ones_refused(monkeypatch):
    assert not [finding for finding in libraries() if finding.level == BAD]
    needs = ["torch>=2.6", "transformers<2", "no-such-package>=1", "pytest<1; extra == 'dev'"]
    monkeypatch.setattr(findings_module.metadata, "requires", lambda name: needs)
    said = [(level, text) for level, text in libraries()]
    assert [level for level, _ in said] == [NOTE, BAD]
    assert "pip install 'transformers<2'" in said[0][1] and "no-such-package is not installed" in said[1][1]


def test_a_hundred_points_are_looked_at_once(found, monkeypatch):
    asked = []
    monkeypatch.setattr(findings_module.assets, "is_cached", lambda name: asked.append(name) or True)
    one = config("data=wiki", "data.samples=64", "eval.tasks=[analogies]")
    found(*(replace(one, seed=seed) for seed in range(100)))
    assert sorted(asked) == ["analogies", "wiki"]


def test_free_memory_is_what_the_container_leaves(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    whole = resources.free_memory()
    assert 0 < whole < 2**50
    for name, content in {
        "memory.max": "300000000",
        "memory.current": "200000000",
        "memory.stat": "anon 1\nfile 50000000\n",
    }.items():
        (tmp_path / name).write_text(content)
    assert resources.free_memory() == 150_000_000
    (tmp_path / "memory.max").write_text("max")
    assert resources.free_memory() > 150_000_000
