"""The run key: moved by everything that can change a number, and by nothing else."""

import dataclasses
from enum import Enum

import pytest
from hydra import compose, initialize_config_module

from harness.config import to_run_config
from harness.keys import baseline_of, run_key, semantic, statistics_key
from harness.records import describe

OVERRIDES = ["model=tiny-llama", "data=synthetic", "eval=smoke", "method=gptq", "scheme=w4g32", "eval.tasks=[analogies]"]
ALL_ON = [
    "scheme.scale_bits=3",
    "scheme.outlier_ratio=0.01",
    "scheme.act_bits=6",
    "scheme.kv_bits=4",
]  # every field of the scheme means something
WITHOUT_EFFECT = {"model.name", "model.source_bits", "eval.name", "data.mirror", "eval.mirror"}
ANOTHER = {  # where adding one or taking the next enum value makes no sense
    "model.id": "tiny:opt",
    "model.revision": None,  # a tiny model has none, and a hub model's bytes say it all
    "data.name": "news",
    "eval.corpora": ["synthetic", "news"],
    "eval.tasks": ["news_cloze"],
    "scheme.outlier_ratio": 0.02,
}


def config(*overrides):
    with initialize_config_module("conf", version_base="1.3"):
        return to_run_config(compose("config", [*OVERRIDES, *overrides]))


def changed(value, key):
    if key in ANOTHER:
        return ANOTHER[key]
    if isinstance(value, Enum):
        members = list(type(value))
        return members[(members.index(value) + 1) % len(members)]
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value}x"


@pytest.fixture
def texts(monkeypatch):
    """Every corpus in memory, so that no asset is needed."""
    from harness import corpora, keys

    monkeypatch.setattr(corpora, "documents", lambda name, split, mirror=None: [f"{name} {split}"])
    keys.text_sha256.cache_clear()
    yield
    keys.text_sha256.cache_clear()


def test_every_semantic_field_moves_the_key(texts):
    original = config(*ALL_ON)
    keys = {run_key(original)}
    for group in ("model", "data", "scheme", "eval"):
        values = getattr(original, group)
        for field in dataclasses.fields(values):
            key = f"{group}.{field.name}"
            value = changed(getattr(values, field.name), key)
            if value == getattr(values, field.name):
                continue
            moved = dataclasses.replace(original, **{group: dataclasses.replace(values, **{field.name: value})})
            if key in WITHOUT_EFFECT:
                assert run_key(moved) == run_key(original), key
            else:
                assert run_key(moved) not in keys, key
                keys.add(run_key(moved))
    assert run_key(config(*ALL_ON, "seed=1")) not in keys
    assert run_key(config(*ALL_ON, "method.solver.damping=0.02")) not in keys
    assert run_key(config(*ALL_ON, "method=rtn")) not in keys
    assert run_key(config()) not in keys
    assert len(keys) > 24


@pytest.mark.parametrize("override", ["device=cpu", "save=true", "retry=true", "paths.results=x", "tracker=wandb", "model.name=other"])
def test_what_moves_no_number_moves_no_key(override, texts):
    assert run_key(config(override)) == run_key(config())


@pytest.mark.parametrize(
    ("switch", "idle"),
    [
        ("scheme.outlier_ratio=0.01", "scheme.outlier_structure=column"),
        ("scheme.scale_bits=3", "scheme.scale_group_size=32"),
        ("scheme.act_bits=8", "scheme.act_symmetric=true"),
        ("scheme.kv_bits=8", "scheme.act_range=tensor"),
    ],
)
def test_fields_that_mean_nothing_move_the_key_only_when_switched_on(switch, idle, texts):
    assert run_key(config(idle)) == run_key(config())
    assert len({run_key(config()), run_key(config(switch)), run_key(config(switch, idle))}) == 3


def test_the_key_is_the_one_from_before_a_field_existed(texts):
    """Records made before then still answer for the configurations in which it is switched off."""
    assert semantic(config())["scheme"].keys() == {"bits", "group_size", "symmetric", "zero_point", "range"}
    of_activations = {"act_bits", "act_symmetric", "act_range"}
    assert semantic(config("scheme.act_bits=8"))["scheme"].keys() - semantic(config())["scheme"].keys() == of_activations
    assert semantic(config("scheme.kv_bits=8"))["scheme"].keys() - semantic(config())["scheme"].keys() == of_activations | {"kv_bits"}
    assert semantic(config(*ALL_ON))["scheme"].keys() == {field.name for field in dataclasses.fields(config().scheme)}


def test_keys_and_values_of_as_many_bits_as_all_activations_go_without_saying(texts):
    assert run_key(config("scheme.act_bits=8")) == run_key(config("scheme.act_bits=8", "scheme.kv_bits=8"))
    assert run_key(config("scheme.act_bits=8")) != run_key(config("scheme.kv_bits=8"))


def test_the_order_of_overrides_does_not_matter(texts):
    assert run_key(config("seed=3", "scheme.bits=2")) == run_key(config("scheme.bits=2", "seed=3"))


def test_the_bytes_of_the_texts_are_in_the_key(texts, monkeypatch):
    from harness import corpora, keys

    before = run_key(config())
    for split in ("train", "test"):
        monkeypatch.setattr(corpora, "documents", lambda name, part, mirror=None, split=split: [f"{name} {part}", "!" * (part == split)])
        keys.text_sha256.cache_clear()
        assert run_key(config()) != before, split


def test_all_methods_share_a_baseline_and_their_statistics(texts):
    points = [config("method=rtn", "scheme=w2"), config("method=gptq"), config("data.samples=3")]
    assert len({run_key(baseline_of(point)) for point in points}) == 1
    assert run_key(baseline_of(points[0])) == run_key(config("method=float"))
    assert statistics_key(points[0]) == statistics_key(points[1]) != statistics_key(points[2])


def test_a_description_holds_no_path_of_this_machine(texts, tmp_path):
    described = describe(config(f"paths.results={tmp_path}"), "0" * 16)
    assert str(tmp_path) not in str(described)
    assert described["scheme"]["bits"] == 4 and described["versions"]["torch"]
