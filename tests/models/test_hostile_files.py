"""Hostile files: nothing in them is run, and each is refused in one line, quickly."""

import json
import pickle
import struct
import time
import zipfile

import pytest
import torch

from harness.foundation.errors import UserError
from harness.models import tiny
from harness.models.fingerprint import model_fingerprint
from harness.models.loading import load_model
from harness.models.reading import check_config
from harness.models.shape import inspect
from harness.models.weight_files import LEGACY_PICKLE, check_pickle, check_shard, weight_files
from tests.helpers.tiny_models import config, tokens

TENSORS = dict(tiny.tiny_model("llama")[0].state_dict())


@pytest.fixture
def checkpoint(tmp_path):
    """A directory with a config and a tokenizer, and no weights."""
    model, tokenizer = tiny.tiny_model("llama")
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def pickles(identifier):
    return config(identifier, allow_pickle=True)


# --- pickles that are what they should be
# -------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("layout", ["one file", "legacy", "sharded"])
def test_pickled_weights_load_where_they_are_allowed_and_only_there(checkpoint, layout):
    if layout == "sharded":
        shards = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(TENSORS)}
        for file in set(shards.values()):
            torch.save({name: TENSORS[name] for name in TENSORS if shards[name] == file}, checkpoint / file)
        (checkpoint / "pytorch_model.bin.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": shards})
        )
    else:
        torch.save(
            TENSORS, checkpoint / "pytorch_model.bin", _use_new_zipfile_serialization=layout != "legacy"
        )
    loaded, whole = load_model(pickles(checkpoint), "cpu"), model_fingerprint(pickles(checkpoint))
    assert torch.equal(loaded.model(tokens(1)).logits, tiny.tiny_model("llama")[0](tokens(1)).logits)
    for function in (model_fingerprint, lambda c: load_model(c, "cpu")):
        with pytest.raises(UserError, match=r"only pytorch_model.*\.bin; .*model\.allow_pickle=true"):
            function(config(checkpoint))
    victim = sorted(checkpoint.glob("*.bin"))[-1]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    assert model_fingerprint(pickles(checkpoint)) != whole
    victim.write_bytes(content[:-1000])
    if layout != "legacy":  # which has nothing that tells its end
        with pytest.raises(UserError, match="truncated or damaged"):
            model_fingerprint(pickles(checkpoint))
    victim.unlink()
    with pytest.raises(UserError, match=r"missing|no model\.safetensors"):
        model_fingerprint(pickles(checkpoint))


def test_safetensors_are_preferred_and_the_switch_is_then_idle(checkpoint):
    tiny.tiny_model("llama")[0].save_pretrained(checkpoint)
    (checkpoint / "pytorch_model.bin").write_bytes(b"never read")
    assert model_fingerprint(pickles(checkpoint)) == model_fingerprint(config(checkpoint))
    load_model(pickles(checkpoint), "cpu")


# --- and pickles that are not
# -------------------------------------------------------------------------------------


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


def attacks(canary):
    """Fourteen pickles that make the file `canary` when they are loaded without care."""
    import builtins
    import codecs
    import functools
    import os
    import runpy
    import subprocess

    shell, python = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    call = {
        "os.system": Call(os.system, shell),
        "eval": Call(builtins.eval, python),
        "exec": Call(builtins.exec, python),
        "subprocess": Call(subprocess.check_call, ["touch", str(canary)]),
        "runpy": Call(runpy._run_code, python, {}),
        "popen": Call(os.popen, shell),
        "open": Call(builtins.open, str(canary), "w"),
        "makedirs": Call(os.makedirs, str(canary)),
        "codecs": Call(codecs.open, str(canary), "w"),
        "partial": Call(functools.partial(os.system, shell)),
        "map": Call(list, map(os.system, [shell])),
        "beside tensors": {**TENSORS, "x": Call(os.system, shell)},
    }
    found = {name: pickle.dumps(value, protocol=2) for name, value in call.items()}
    found["protocol 0"] = f"cposix\nsystem\n(S'{shell}'\ntR.".encode()
    found["INST opcode"] = f"(S'{shell}'\niposix\nsystem\n.".encode()
    found["protocol 4"] = pickle.dumps(Call(os.system, shell), protocol=4)
    return found


NAMES = sorted(attacks("x"))


def as_torch_zip(path, payload):
    torch.save({"x": torch.ones(1)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, payload if name.endswith("data.pkl") else content)


def as_legacy(path, payload):
    path.write_bytes(
        LEGACY_PICKLE
        + pickle.dumps(1001, 2)
        + pickle.dumps({"little_endian": True}, 2)
        + payload
        + pickle.dumps([], 2)
    )


@pytest.mark.parametrize("wrap", [as_torch_zip, as_legacy, lambda path, payload: path.write_bytes(payload)])
@pytest.mark.parametrize("name", NAMES)
def test_no_pickle_runs_anything_whatever_is_allowed(checkpoint, tmp_path, name, wrap):
    canary = tmp_path / "canary"
    payload = attacks(canary)[name]
    pickle.loads(payload)  # the attack is a real one
    wait_for(canary)
    canary.rmdir() if canary.is_dir() else canary.unlink()
    wrap(checkpoint / "pytorch_model.bin", payload)
    for asked in (config(checkpoint), pickles(checkpoint)):
        with pytest.raises(UserError) as caught:
            load_model(asked, "cpu")
        assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)
    inspect(pickles(checkpoint))
    time.sleep(0.02)
    assert not canary.exists()


def wait_for(path):
    for _ in range(200):
        if path.exists():
            return
        time.sleep(0.01)
    pytest.fail("the attack does not work, so its refusal proves nothing")


def test_a_compressed_pickle_may_be_a_bomb(tmp_path):
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    with pytest.raises(UserError, match="compressed"):
        check_pickle(tmp_path / "pytorch_model.bin")


# --- safetensors headers
# ------------------------------------------------------------------------------------------


def tensor(shape=(2,), begin=0, end=8, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


HEADERS = {
    "longer than the file": (2**40, b"{}"),
    "at the limit": (100_000_000, b"{}"),
    "nested": (None, b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a list": (None, b"[]"),
    "no UTF-8": (None, b'{"\xff": 1}'),
    "a name twice": (None, b'{"a": %s, "a": %s}' % ((json.dumps(tensor()).encode(),) * 2)),
    "overlapping": (None, {"a": tensor(), "b": tensor(begin=4, end=12)}),
    "a hole": (None, {"a": tensor(), "b": tensor(begin=12, end=20)}),
    "backwards": (None, {"a": tensor(begin=8, end=0)}),
    "negative": (None, {"a": tensor((-2,), 0, -8)}),
    "huge shape": (None, {"a": tensor((2**62, 2**62))}),
    "infinite": (None, b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 1e999]}}'),
    "a fraction": (None, {"a": tensor((2.5,))}),
    "no type": (None, {"a": tensor(dtype=None)}),
    "wrong type": (None, {"a": tensor(dtype="F16")}),
    "a quantized weight": (None, {"a.weight": tensor((8,), dtype="I8")}),
}


@pytest.mark.parametrize("name", HEADERS)
def test_header_bombs_are_refused(tmp_path, name):
    length, header = HEADERS[name]
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", length or len(raw)) + raw + b"\0" * 8)
    with pytest.raises(
        UserError, match=r"damaged|truncated|not a safetensors|too long|already quantized"
    ) as caught:
        check_shard(tmp_path / "model.safetensors")
    assert "\n" not in str(caught.value)


def test_files_beside_the_checked_ones_are_never_read_instead(checkpoint):
    """transformers would follow these keys and files to weights and tokenizers that are in no fingerprint."""
    for name, key, value in [
        ("config.json", "transformers_weights", "other.safetensors"),
        ("tokenizer_config.json", "fast_tokenizer_files", ["tokenizer.4.0.0.json"]),
        ("config.json", "num_hidden_layers", 10**9),
    ]:
        before = (checkpoint / name).read_text()
        (checkpoint / name).write_text(json.dumps(json.loads(before) | {key: value}))
        with pytest.raises(UserError, match=key):
            check_config(checkpoint)
        (checkpoint / name).write_text(before)
    (checkpoint / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="adapter"):
        check_config(checkpoint)


def test_a_deep_config_is_refused(checkpoint):
    (checkpoint / "config.json").write_bytes(
        b'{"model_type": "llama", "a": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001
    )
    with pytest.raises(UserError, match="not readable as JSON"):
        inspect(config(checkpoint))
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        weight_files(checkpoint, allow_pickle=True)
