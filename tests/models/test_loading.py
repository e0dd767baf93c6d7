"""Loading, refusing and fingerprinting models."""

import json
import shutil
from collections import Counter

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, FalconConfig

from harness.config.groups import Dtype
from harness.foundation import cache, hashes
from harness.foundation.errors import UserError
from harness.models import tiny
from harness.models.fingerprint import model_fingerprint
from harness.models.loading import load_model
from harness.models.shape import inspect
from harness.quantization.blocks import ModelBlocks
from tests.helpers.tiny_models import VARIANTS, config, tokens


@pytest.fixture
def checkpoint(tmp_path):
    """A directory as transformers writes it."""
    model, tokenizer = tiny.tiny_model("llama")
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


# --- shapes without weights
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_inspect_agrees_with_the_loaded_model(name):
    loaded = load_model(config(f"tiny:{name}"), "cpu")
    shape = inspect(config(f"tiny:{name}"))
    source = ModelBlocks(loaded.model, loaded.family)
    linears = {
        f"{block.name}.{path}": tuple(block.module.get_submodule(path).weight.shape)
        for block in source
        for group in block.groups
        for path in group
    }
    assert shape.paths == linears and list(shape.paths) == list(linears)
    assert shape.parameters == sum(p.numel() for p in loaded.model.parameters())
    assert (shape.blocks, shape.vocabulary, shape.family) == (3, 288, loaded.family.name)
    assert all(width % 32 == 0 for linear in linears.values() for width in linear)


def test_inspect_reads_nothing_but_the_config_however_large_the_model(tmp_path):
    falcon_180b = FalconConfig(
        hidden_size=14848,
        num_hidden_layers=80,
        num_attention_heads=232,
        num_kv_heads=8,
        new_decoder_architecture=True,
    )
    falcon_180b.save_pretrained(tmp_path)
    shape = inspect(config(tmp_path))
    assert shape.parameters == pytest.approx(178.6e9, rel=0.001)
    assert shape.paths["transformer.h.79.mlp.dense_h_to_4h"] == (4 * 14848, 14848)


# --- loading
# -----------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("shard", ["5GB", "100KB"])
def test_a_directory_loads_as_what_was_saved(checkpoint, shard):
    model, _ = tiny.tiny_model("llama")
    shutil.rmtree(checkpoint)
    model.save_pretrained(checkpoint, max_shard_size=shard)
    tiny.byte_tokenizer().save_pretrained(checkpoint)
    assert (checkpoint / "model.safetensors.index.json").exists() == (shard == "100KB")
    loaded = load_model(config(checkpoint), "cpu")
    assert torch.equal(loaded.model(tokens(2)).logits, model(tokens(2)).logits)
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.tokenizer.encode("é") == [1, *tiny.byte_tokenizer().encode("é", add_special_tokens=False)]
    assert load_model(config(checkpoint, Dtype.float16), "cpu").model.dtype == torch.float16


def damage_config(**changes):
    def damage(directory):
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def overwrite(content, name="model.safetensors"):
    return lambda directory: (directory / name).write_bytes(content)


def truncate(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def only_pickle(directory):
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def edit_weights(change):
    def damage(directory):
        tensors = load_file(directory / "model.safetensors")
        change(tensors)
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})

    return damage


def index(change=lambda names: None, keep_single=False, extra=None):
    """Split into two shards with an index, then spoil it."""

    def damage(directory):
        tensors = load_file(directory / "model.safetensors")
        names = {
            name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(sorted(tensors))
        }
        for file in set(names.values()):
            part = {name: tensors[name] for name in names if names[name] == file}
            save_file(part | (extra or {}), directory / file, metadata={"format": "pt"})
        if not keep_single:
            (directory / "model.safetensors").unlink()
        change(names)
        (directory / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": names})
        )

    return damage


def remove(name):
    return lambda directory: (directory / name).unlink()


def remove_shard(directory):
    index()(directory)
    (directory / "model-00002-of-00002.safetensors").unlink()


def surplus_shard(directory):
    index()(directory)
    shutil.copy(
        directory / "model-00002-of-00002.safetensors", directory / "model-00003-of-00003.safetensors"
    )


NORM = "model.norm.weight"
REFUSED_UNREAD = {
    "no config": (remove("config.json"), "no config.json"),
    "config is a web page": (overwrite(b"<!DOCTYPE html><html>", "config.json"), "config.json: a web page"),
    "config is no object": (overwrite(b"[]", "config.json"), "no JSON object"),
    "config without type": (overwrite(b"{}", "config.json"), "no model_type"),
    "code of an unknown type": (
        damage_config(model_type="evil", auto_map={"AutoModelForCausalLM": "modeling_evil.EvilForCausalLM"}),
        "transformers has no 'evil', and the checkpoint's own code \\(auto_map\\) is never run",
    ),
    "another config": (damage_config(configuration_files=["config.5.0.0.json"]), "configuration_files"),
    "already quantized": (
        damage_config(quantization_config={"quant_method": "gptq"}),
        "already quantized \\(gptq\\)",
    ),
    "unknown type": (damage_config(model_type="no_such_model"), "no_such_model"),
    "unsupported type": (damage_config(model_type="gpt2"), "gpt2.*not supported"),
    "ill-typed value": (damage_config(num_hidden_layers="three"), "num_hidden_layers|as an integer"),
    "no tokenizer": (lambda d: [path.unlink() for path in d.glob("tokenizer*")], "no tokenizer"),
    "pickle only": (only_pickle, "only pytorch_model.bin"),
    "no weights": (remove("model.safetensors"), "no model.safetensors"),
    "empty": (overwrite(b""), "empty file"),
    "pointer": (
        overwrite(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
        "git-lfs pointer",
    ),
    "web page": (overwrite(b"\n<html><body>503</body></html>"), "web page"),
    "garbage": (overwrite(b"\xff" * 4096), "not a safetensors file"),
    "bad header": (
        overwrite((16).to_bytes(8, "little") + b'{"a": {"b": "c"}' + b"\0" * 64),
        "header is damaged",
    ),
    "short": (overwrite(b"\0\1"), "truncated: 2 bytes"),
    "truncated": (truncate, "truncated: has \\d+ of \\d+ bytes"),
    "missing shard": (remove_shard, "model-00002-of-00002.safetensors: missing"),
    "surplus shard": (surplus_shard, "model-00003-of-00003.safetensors: not in"),
    "tensor twice": (index(extra={"copy": torch.zeros(1)}), "copy is also in"),
    "quantized checkpoint": (
        lambda d: (d / "model.safetensors").rename(d / "quantized.safetensors"),
        "needs the float model",
    ),
    "empty index": (index(lambda names: names.clear()), "no weight_map"),
}
REFUSED_READ = {
    "wrong shape": (
        edit_weights(lambda t: t.update({NORM: torch.ones(32)})),
        r"model.norm.weight has shape \(32,\).*\(64,\)",
    ),
    "missing tensor": (edit_weights(lambda t: t.pop(NORM)), "lack model.norm.weight"),
    "promised tensor": (
        index(lambda names: names.update(ghost="model-00001-of-00002.safetensors")),
        "lack ghost",
    ),
    "impossible value": (damage_config(num_attention_heads=5, head_dim=None), "config.json"),
    "broken tokenizer": (overwrite(b'{"model": 3}', "tokenizer.json"), "no usable tokenizer"),
}


@pytest.mark.parametrize("name", REFUSED_UNREAD)
def test_bad_directories_are_refused_before_weights_are_read(checkpoint, monkeypatch, name):
    damage, message = REFUSED_UNREAD[name]
    damage(checkpoint)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("read weights"))
    with pytest.raises(UserError, match=message) as caught:
        load_model(config(checkpoint), "cpu")
    assert "\n" not in str(caught.value)


HOSTILE = [
    "../x.safetensors",
    "/etc/x.safetensors",
    "a/x.safetensors",
    "\\\\host\\x.safetensors",
    "C:x.safetensors",
    "x.bin",
    "..",
    7,
]


@pytest.mark.parametrize("shard", HOSTILE)
def test_an_index_may_only_name_safetensors_files_beside_it(checkpoint, shard):
    index(lambda names: names.update(x=shard))(checkpoint)
    with pytest.raises(UserError, match="is no name of a safetensors file"):
        load_model(config(checkpoint), "cpu")


@pytest.mark.parametrize("name", REFUSED_READ)
def test_weights_that_do_not_fit_are_refused(checkpoint, name):
    damage, message = REFUSED_READ[name]
    damage(checkpoint)
    with pytest.raises(UserError, match=message) as caught:
        load_model(config(checkpoint), "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("identifier", "revision", "message"),
    [
        ("./nowhere", None, "no such directory"),
        ("/nowhere/at/all", None, "no such directory"),
        ("asset:", None, "use asset:<name>"),
        ("what:ever", None, "use asset:<name>"),
        ("tiny:nonsense", None, "choose among.*tiny:llama"),
        ("tiny:llama", "main", "model.revision=main: only hub models"),
    ],
)
def test_ids_that_name_nothing(identifier, revision, message):
    for function in (inspect, model_fingerprint, lambda c: load_model(c, "cpu")):
        with pytest.raises(UserError, match=message):
            function(config(identifier, revision=revision))


@torch.no_grad()
def test_a_warm_hub_cache_is_enough_offline(checkpoint, tmp_path, monkeypatch):
    revision, repository = "0" * 40, tmp_path / "hub" / "models--someone--llama"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    shutil.copytree(checkpoint, repository / "snapshots" / revision)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    loaded = load_model(config("someone/llama"), "cpu")
    assert torch.equal(loaded.model(tokens(1)).logits, tiny.tiny_model("llama")[0](tokens(1)).logits)
    pinned = config("someone/llama", revision=revision)
    assert torch.equal(load_model(pinned, "cpu").model(tokens(1)).logits, loaded.model(tokens(1)).logits)
    assert model_fingerprint(pinned) == model_fingerprint(config("someone/llama"))
    with pytest.raises(UserError, match="hub cache"):
        inspect(config("someone/else"))
    pickled = shutil.copytree(repository, repository.with_name("models--someone--pickled"))
    (pickled / "snapshots" / revision / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no safetensors weights"):
        load_model(config("someone/pickled"), "cpu")


def test_only_weights_configs_and_tokenizers_are_downloaded(checkpoint, tmp_path, monkeypatch):
    index()(checkpoint)
    for name in ("pytorch_model.bin", "modeling.py", "consolidated.safetensors", "training_args.bin"):
        (checkpoint / name).write_bytes(b"\x80 canary")
    (checkpoint / "onnx").mkdir()
    shutil.copy(checkpoint / "config.json", checkpoint / "onnx")

    def download(repository, revision, allow_patterns, ignore_patterns):
        names = [path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()]
        for name in filter_repo_objects(
            names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        ):
            (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkpoint / name, tmp_path / "local" / name)
        return str(tmp_path / "local")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    load_model(config("someone/online"), "cpu")
    shards = {f"model-0000{i}-of-00002.safetensors" for i in (1, 2)} | {"model.safetensors.index.json"}
    assert {path.name for path in (tmp_path / "local").rglob("*")} == shards | {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.parametrize(
    ("kind", "message"), [("GatedRepoError", "hf auth login"), ("LocalEntryNotFoundError", "go online once")]
)
def test_hub_refusals_say_what_to_do(monkeypatch, kind, message):
    def refuse(*_, **__):
        raise type(kind, (Exception,), {})("several\nlines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UserError, match=f"model.id=someone/{kind}: .*{message}"):
        inspect(config(f"someone/{kind}"))


# --- fingerprints
# ------------------------------------------------------------------------------------------------


def test_fingerprints_follow_the_bytes_and_are_remembered(checkpoint, monkeypatch):
    hashed = Counter()

    def counted(path, original=hashes.sha256_file):
        hashed[path.name] += 1
        return original(path)

    monkeypatch.setattr(hashes, "sha256_file", counted)
    first = model_fingerprint(config(checkpoint))
    assert first.startswith("sha256:") and set(hashed.values()) == {1} and "model.safetensors" in hashed
    (checkpoint / "README.md").write_text("not part of the model")
    assert model_fingerprint(config(checkpoint)) == first and set(hashed.values()) == {1}

    weights = checkpoint / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert model_fingerprint(config(checkpoint)) != first and hashed["model.safetensors"] == 2

    content[-1] ^= 1
    weights.write_bytes(content)
    (cache.cache_dir() / "file_hashes.json").write_text("{ damaged")  # a lost memory costs time, nothing else
    assert model_fingerprint(config(checkpoint)) == first and hashed["config.json"] == 2


def test_tiny_models_are_deterministic_and_leave_the_global_generator_alone():
    state = torch.random.get_rng_state()
    (a, _), (b, _), (c, _) = (tiny.tiny_model("qwen3", seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.lm_head.weight, c.lm_head.weight)
    marks = {model_fingerprint(config(f"tiny:{name}")) for name in VARIANTS}
    assert len(marks) == len(VARIANTS)


def test_the_byte_tokenizer_is_lossless():
    tokenizer, text = tiny.byte_tokenizer(), "Tab\t, newline\n, ümläut, 漢字, 🙂  two spaces"
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text
    assert tokenizer.encode(text)[0] == tokenizer.bos_token_id == 1
    assert len(tokenizer.encode(text)) == 1 + len(text.encode())
