"""The run key: moved by everything that can change a number, and by nothing else."""

import dataclasses
import random
import shutil
import typing
from enum import Enum

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from harness.bookkeeping import keys as keys_module
from harness.bookkeeping.description import describe
from harness.bookkeeping.keys import baseline_of, fingerprint, run_key, semantic, statistics_key
from harness.config.compose import method_config, method_names
from harness.config.run_config import to_run_config
from harness.models.tiny import tiny_model

OVERRIDES = [
    "model=tiny-llama",
    "data=synthetic",
    "eval=smoke",
    "method=gptq",
    "scheme=w4g32",
    "eval.tasks=[analogies]",
]
ALL_ON = [
    "scheme.scale_bits=3",
    "scheme.outlier_ratio=0.01",
    "scheme.act_bits=6",
    "scheme.kv_bits=4",
]  # every field of the scheme means something
# the only leaves of a configuration that move no key: names, places, devices, what is kept or watched
WITHOUT_EFFECT = {
    *("model.name", "model.source_bits", "eval.name"),
    "model.revision",  # a hub model's bytes say it all
    "model.allow_pickle",  # likewise: it decides which files may be read, and those are hashed
    *("data.mirror", "eval.mirror"),  # places; what is read there is hashed
    *("paths.results", "paths.reports", "paths.cache_gib"),
    *("tracker.name", "tracker.mode", "tracker.project", "tracker.entity", "tracker.group", "tracker.tags"),
    *("device", "save", "retry", "isolate", "time_limit"),
}
ANOTHER = {  # where adding one or taking the next enum value makes no sense
    "model.id": "tiny:opt",
    "data.name": "news",
    "eval.corpora": ["synthetic", "news"],
    "eval.tasks": ["news_cloze"],
    "scheme.outlier_ratio": 0.02,
    "tracker.name": "wandb",
    "time_limit": 5.0,
}
NONE = {int: 7, float: 0.5, str: "x"}  # what to put where nothing stands, by type


def config(*overrides):
    with initialize_config_module("conf", version_base="1.3"):
        return to_run_config(compose("config", [*OVERRIDES, *overrides]))


def changed(value, key, hint=None):
    """Another value for a leaf."""
    if key in ANOTHER:
        return ANOTHER[key]
    if value is None:
        return next((NONE[option] for option in typing.get_args(hint) if option in NONE), ["x"])
    if isinstance(value, Enum):
        members = list(type(value))
        return members[(members.index(value) + 1) % len(members)]
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value}x"


def neighbours(original):
    """Every configuration that differs from `original` in one leaf of one typed group or in one scalar, by
    the leaf's name.
    """
    for field in dataclasses.fields(original):
        value = getattr(original, field.name)
        if field.name in ("method", "method_config"):
            continue
        if not dataclasses.is_dataclass(value):
            hint = typing.get_type_hints(type(original))[field.name]
            yield field.name, dataclasses.replace(original, **{field.name: changed(value, field.name, hint)})
            continue
        for leaf, hint in typing.get_type_hints(type(value)).items():
            key = f"{field.name}.{leaf}"
            moved = bare(value, **{leaf: changed(getattr(value, leaf), key, hint)})
            yield key, dataclasses.replace(original, **{field.name: moved})


def bare(group, /, **change):
    """`dataclasses.replace` without the rules between fields."""
    copy = object.__new__(type(group))
    copy.__dict__.update(vars(group) | change)
    return copy


def leaves(node, path=()):
    """The places of the values in nested dicts."""
    if not isinstance(node, dict):
        return [path]
    return [leaf for name, value in node.items() for leaf in leaves(value, (*path, name))]


def with_leaf(node, path, value):
    return value if not path else node | {path[0]: with_leaf(node[path[0]], path[1:], value)}


@pytest.fixture
def texts(monkeypatch):
    """Every corpus in memory, so that no asset is needed."""
    from harness.bookkeeping import keys
    from harness.data import corpora

    monkeypatch.setattr(corpora, "documents", lambda name, split, mirror=None: [f"{name} {split}"])
    keys.text_sha256.cache_clear()
    yield
    keys.text_sha256.cache_clear()


def test_every_leaf_moves_the_key_or_is_named_as_one_that_does_not(texts, monkeypatch):
    monkeypatch.setattr(keys_module, "fingerprint", lambda config: config.id)
    original = config(*ALL_ON)
    keys, seen = {run_key(original)}, set()
    for key, moved in neighbours(original):
        seen.add(key)
        if key in WITHOUT_EFFECT:
            assert run_key(moved) == run_key(original), key
        else:
            assert run_key(moved) not in keys, key
            keys.add(run_key(moved))
    assert seen >= WITHOUT_EFFECT and len(keys) > 30


@pytest.mark.parametrize("method", method_names())
def test_every_leaf_of_every_method_moves_the_key(texts, method):
    original = config(f"method={method}")
    keys = {run_key(original)}
    for path in leaves(original.method_config):
        value = original.method_config
        for name in path:
            value = value[name]
        moved = with_leaf(original.method_config, path, changed(value, ".".join(path), int | None))
        key = run_key(dataclasses.replace(original, method_config=moved))
        if path == ("name",) and original.method_config.get("transform"):
            assert key in keys  # a pair is one method, whichever half gave it its name
        else:
            assert key not in keys, path
        keys.add(key)


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
    assert (
        semantic(config("scheme.act_bits=8"))["scheme"].keys() - semantic(config())["scheme"].keys()
        == of_activations
    )
    assert semantic(config("scheme.kv_bits=8"))["scheme"].keys() - semantic(config())[
        "scheme"
    ].keys() == of_activations | {"kv_bits"}
    assert semantic(config(*ALL_ON))["scheme"].keys() == {
        field.name for field in dataclasses.fields(config().scheme)
    }


def test_keys_and_values_of_as_many_bits_as_all_activations_go_without_saying(texts):
    assert run_key(config("scheme.act_bits=8")) == run_key(config("scheme.act_bits=8", "scheme.kv_bits=8"))
    assert run_key(config("scheme.act_bits=8")) != run_key(config("scheme.kv_bits=8"))


def test_a_number_has_one_key_however_it_is_written(texts):
    whole, point = (config("method=affinequant", f"method.transform.stability={one}") for one in ("1", "1.0"))
    assert run_key(whole) == run_key(point) and describe(whole, "")["method"] == describe(point, "")["method"]
    assert isinstance(whole.method_config["transform"]["stability"], float)
    assert run_key(whole) != run_key(config("method=affinequant", "method.transform.stability=0"))


@pytest.mark.parametrize("method", method_names())
def test_what_a_yaml_says_is_already_in_the_form_that_keys_are_made_of(method):
    assert repr(config(f"method={method}").method_config) == repr(method_config(method))


def test_the_order_of_overrides_and_of_yaml_keys_does_not_matter(texts):
    overrides = [
        *OVERRIDES,
        *ALL_ON,
        "seed=3",
        "data.samples=5",
        "method.solver.damping=0.02",
        "eval.windows=2",
    ]
    expected, rng = run_key(config(*overrides)), random.Random(0)

    def shuffled(node):
        return (
            {name: shuffled(node[name]) for name in rng.sample(list(node), len(node))}
            if isinstance(node, dict)
            else node
        )

    with initialize_config_module("conf", version_base="1.3"):
        for _ in range(5):
            composed = compose("config", rng.sample(overrides, len(overrides)))
            for _ in range(20):
                assert (
                    run_key(to_run_config(OmegaConf.create(shuffled(OmegaConf.to_container(composed)))))
                    == expected
                )


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_one_flipped_byte_of_a_model_moves_the_key(texts, tmp_path, name):
    model, tokenizer = tiny_model("llama")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    point = config("model=hub", f"model.id={tmp_path}")
    before = run_key(point)
    content = bytearray((tmp_path / name).read_bytes())
    place = content.rindex(b"5") if name.endswith("json") and b"5" in content else len(content) - 1
    content[place] ^= 1
    (tmp_path / name).write_bytes(content)
    fingerprint.cache_clear()
    assert run_key(point) != before


def test_a_mirrors_data_of_a_task_is_in_the_key(texts, tmp_path):
    before = run_key(config("eval.tasks=[piqa]"))
    data = tmp_path / "mirror" / "baber" / "piqa" / "test.jsonl"
    data.parent.mkdir(parents=True)
    point = config("eval.tasks=[piqa,analogies]", f"eval.mirror={tmp_path / 'mirror'}")
    keys = {before, run_key(config("eval.tasks=[piqa,analogies]"))}
    for content in (b"{}", b"{ }"):
        data.write_bytes(content)
        keys.add(run_key(point))
    assert len(keys) == 4
    shutil.copytree(tmp_path / "mirror", tmp_path / "elsewhere")
    assert run_key(config("eval.tasks=[piqa,analogies]", f"eval.mirror={tmp_path / 'elsewhere'}")) in keys


def test_keys_of_published_records_stay(texts, monkeypatch):
    """Changing the way a key is made would run everything again; whoever means to raises `schema.NUMBERS`
    instead.
    """
    monkeypatch.setattr(keys_module, "fingerprint", lambda config: f"sha256:{config.id}")
    assert run_key(config()) == "4999e346e78a7c30"
    assert (
        run_key(config(*ALL_ON, "method=affinequant", "method/solver=quantease", "data.propagate=float"))
        == "5317424980c9ed47"
    )


def test_the_bytes_of_the_texts_are_in_the_key(texts, monkeypatch):
    from harness.bookkeeping import keys
    from harness.data import corpora

    before = run_key(config())
    for split in ("train", "test"):
        monkeypatch.setattr(
            corpora,
            "documents",
            lambda name, part, mirror=None, split=split: [f"{name} {part}", "!" * (part == split)],
        )
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


def test_windows_of_each_corpus_move_the_key_only_where_they_differ(texts):
    both = "eval.corpora=[synthetic,news]"
    same = ["eval.windows=3"], ["eval.windows.synthetic=3", "eval.windows.news=3"]
    assert len({run_key(config(both, *overrides)) for overrides in same}) == 1
    different = ["eval.windows.synthetic=3"], ["eval.windows.news=3"], ["eval.windows.news=null"]
    assert len({run_key(config(both, *overrides)) for overrides in (same[0], *different)}) == 4
    assert run_key(config("eval.windows.c4=9")) == run_key(config())  # which is not read
