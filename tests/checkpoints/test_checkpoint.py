"""Quantized linears, and checkpoints that come back bit for bit or say which file is damaged."""

import ast
import copy
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from harness.checkpoints import checkpoint, modules
from harness.checkpoints.checkpoint import load, read_manifest, save
from harness.checkpoints.linear import QuantizedLinear
from harness.foundation.errors import UserError
from harness.foundation.seals import seal
from harness.models import tiny
from harness.models.families import family_of
from harness.quantization.blocks import ModelBlocks
from methods.blocks.activations import calibrating, install_activations_
from methods.blocks.affine_norm import AffineNorm
from methods.contracts.block import Attention
from methods.contracts.scheme import ActRange, Scheme, ZeroPoint
from methods.solving.ranges import fit_grid
from methods.weights.bits_per_weight import bits_per_weight
from methods.weights.stored import UniformWeight
from tests.helpers.problems import scheme
from tests.helpers.tiny_models import VARIANTS, tokens

SCHEME = scheme(bits=3, group_size=32)
FLOAT_ZERO = scheme(bits=4, zero_point=ZeroPoint.float)
TOKENS = tokens(2)


def nearest(weight: torch.Tensor, scheme: Scheme = SCHEME) -> UniformWeight:
    grid = fit_grid(weight.float(), scheme)
    return UniformWeight(grid.encode(weight.float()), grid)


def quantized(name: str, scheme: Scheme = SCHEME, dtype: torch.dtype = torch.float32):
    """A tiny model with every linear of its blocks rounded to the nearest."""
    model, tokenizer = tiny.tiny_model(name, dtype=dtype)
    source = ModelBlocks(model, family_of(model.config))
    for block in source:
        for path in (path for group in block.groups for path in group):
            linear = block.module.get_submodule(path)
            source.replace_linear(
                block, path, QuantizedLinear(nearest(linear.weight, scheme), linear.bias, linear.weight.dtype)
            )
    return model, tokenizer


def equipped(name: str, scheme: Scheme, dtype: torch.dtype = torch.float32):
    """The same with activations of few bits in all blocks but the last, maps behind norms, and biases that
    the architecture has not.
    """
    model, tokenizer = quantized(name, dtype=dtype)
    *blocks, _ = ModelBlocks(model, family_of(model.config))
    entries = ModelBlocks(model, family_of(model.config)).capture(TOKENS, 2)
    for index, block in enumerate(blocks):
        install_activations_(
            replace(block, attention=Attention("self_attn", model.config.model_type == "opt")), scheme
        )
        norm = "self_attn_layer_norm" if name == "opt" else "input_layernorm"
        wrapped = AffineNorm(block.module.get_submodule(norm))
        wrapped.inverse = (
            torch.eye(64) + 0.01 * torch.randn(64, 64, generator=torch.Generator().manual_seed(index))
        ).half()
        wrapped.shift = torch.linspace(-0.1, 0.1, 64).half() if index else None
        block.module.set_submodule(norm, wrapped)
        for linear in (block.module.get_submodule(path) for path in block.linears):
            linear.bias = nn.Parameter(
                torch.linspace(-0.1, 0.1, linear.out_features, dtype=dtype), requires_grad=False
            )
        with calibrating(block):
            block.run(entries[0].hidden, entries[0].calls[index])
    return model, tokenizer


def ties(model: nn.Module) -> set[frozenset[str]]:
    groups: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), set()).add(name)
    return {frozenset(names) for names in groups.values() if len(names) > 1}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved") / "checkpoint"
    save(*quantized("llama"), directory, {"run_key": "0123", "seconds": 1.5})
    return directory


@pytest.fixture
def copied(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "copy"))


# --- the module
# --------------------------------------------------------------------------------------------------


def test_a_quantized_linear_is_a_linear_with_the_rounded_weight():
    linear = nn.Linear(64, 32)
    weight = nearest(linear.weight.detach())
    module = QuantizedLinear(weight, linear.bias, torch.float32)
    inputs = torch.randn(5, 64)
    expected = nn.functional.linear(inputs, weight.dequantize(), linear.bias)
    assert torch.equal(module(inputs), expected)
    assert torch.equal(module.quantized.dequantize(), module.weight)
    assert torch.equal(module.quantized.codes, weight.codes)
    assert bits_per_weight(module.packed, linear.weight.numel()) == bits_per_weight(
        weight.tensors(), linear.weight.numel()
    )
    assert set(module.state_dict()) == {"bias"}
    assert not any(p.requires_grad for p in module.parameters())
    assert torch.equal(copy.deepcopy(module)(inputs), expected)


def test_the_weight_moves_and_casts_with_the_module():
    linear = nn.Linear(64, 32, bias=False)
    module = QuantizedLinear(nearest(linear.weight.detach()), None, torch.float32)
    assert module.to(torch.bfloat16).weight.dtype == torch.bfloat16
    assert module.to("meta").weight.is_meta
    assert module.quantized.dequantize().device.type == "cpu"  # the truth neither moves nor changes
    assert QuantizedLinear(nearest(linear.weight.detach()), None, torch.float16).weight.dtype == torch.float16


# --- the round trip
# ----------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", VARIANTS)
def test_a_loaded_checkpoint_gives_the_same_logits_bit_for_bit(name, tmp_path):
    model, tokenizer = quantized(name)
    save(model, tokenizer, tmp_path / "saved", {})
    reloaded, retokenizer = load(tmp_path / "saved")
    assert torch.equal(reloaded(TOKENS).logits, model(TOKENS).logits)
    # something was quantized
    assert not torch.equal(tiny.tiny_model(name)[0](TOKENS).logits, model(TOKENS).logits)
    assert ties(reloaded) == ties(model)
    assert retokenizer("héllo").input_ids == tokenizer("héllo").input_ids
    assert not reloaded.training and not any(p.requires_grad for p in reloaded.parameters())
    assert {k: type(v) for k, v in reloaded.named_modules()} == {k: type(v) for k, v in model.named_modules()}


@torch.no_grad()
@pytest.mark.parametrize("name", ["gemma3", "falcon_new", "bloom"])
@pytest.mark.parametrize("scheme", [SCHEME, FLOAT_ZERO])
def test_bfloat16_round_trips(name, scheme, tmp_path):
    model, tokenizer = quantized(name, scheme, torch.bfloat16)
    save(model, tokenizer, tmp_path / "saved", {})
    reloaded, _ = load(tmp_path / "saved")
    assert torch.equal(reloaded(TOKENS).logits, model(TOKENS).logits)
    originals = dict(model.named_buffers())
    assert all(buffer.dtype == originals[name].dtype for name, buffer in reloaded.named_buffers())


@torch.no_grad()
@pytest.mark.parametrize(
    "pattern", ["as config", "tied", "untied", "with a norm", "partly quantized", "same values"]
)
def test_ties_survive(pattern, tmp_path):
    model, tokenizer = quantized("llama")
    layers, embedding = model.model.layers, model.model.embed_tokens.weight
    if pattern == "tied":
        model.lm_head.weight = embedding
    elif pattern == "untied":
        model, tokenizer = quantized("qwen2")  # its config ties
        model.config.tie_word_embeddings = False
        model.lm_head.weight = nn.Parameter(model.model.embed_tokens.weight * 0.5, requires_grad=False)
    elif pattern == "with a norm":
        layers[0].input_layernorm.weight = layers[1].input_layernorm.weight = model.model.norm.weight
        model.lm_head.weight = embedding
    elif pattern == "partly quantized":
        layers[2].mlp.up_proj = nn.Linear(64, 128, bias=False).requires_grad_(False)
        layers[2].mlp.gate_proj = layers[2].mlp.up_proj
    elif pattern == "same values":
        model.lm_head.weight = nn.Parameter(embedding.clone(), requires_grad=False)
    save(model, tokenizer, tmp_path / "saved", {})
    reloaded, _ = load(tmp_path / "saved")
    assert ties(reloaded) == ties(model)
    assert torch.equal(reloaded(TOKENS).logits, model(TOKENS).logits)


def test_a_checkpoint_holds_packed_weights_and_nothing_twice(saved):
    manifest = read_manifest(saved)
    assert manifest["run"] == {"run_key": "0123", "seconds": 1.5}
    assert (manifest["schema"], manifest["family"], manifest["dtype"]) == (1, "llama", "float32")
    path = "model.layers.0.self_attn.q_proj"
    assert manifest["linears"][path]["layout"]["kind"] == "uniform"
    with safe_open(saved / checkpoint.WEIGHTS, "pt") as file:
        names = set(file.keys())
        assert f"{path}.weight" not in names and f"{path}.codes" in names
        assert file.get_tensor(f"{path}.codes").nbytes == 64 * 64 * 3 // 8
    assert set(manifest["files"]) == {file.name for file in saved.iterdir()} - {"manifest.json"}
    assert "_name_or_path" not in json.loads((saved / "config.json").read_text())
    tied, _ = quantized("qwen2")
    assert modules._other_tensors(tied)[1] == {"lm_head.weight": "model.embed_tokens.weight"}


EQUIPMENT = {
    "tokens": scheme(act_bits=4),
    "cache": scheme(kv_bits=3, act_symmetric=True),
    "static": scheme(act_bits=8, kv_bits=4, act_range=ActRange.tensor),
}


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", EQUIPMENT)
@pytest.mark.parametrize("name", ["llama", "opt"])
def test_activations_maps_and_gained_biases_come_back_bit_for_bit(name, kind, dtype, tmp_path):
    model, tokenizer = equipped(name, EQUIPMENT[kind], dtype)
    save(model, tokenizer, tmp_path / "saved", {})
    reloaded, _ = load(tmp_path / "saved")
    assert torch.equal(reloaded(TOKENS).logits, model(TOKENS).logits)
    assert repr(reloaded) == repr(model)
    expected = dict(model.named_buffers())
    assert all(
        torch.equal(found, expected[name]) and found.dtype == expected[name].dtype
        for name, found in reloaded.named_buffers()
    )
    assert not any(p.requires_grad or p.is_meta for p in reloaded.parameters())
    assert not torch.equal(quantized(name, dtype=dtype)[0](TOKENS).logits, model(TOKENS).logits)


@pytest.fixture(scope="module")
def saved_equipped(tmp_path_factory):
    directory = tmp_path_factory.mktemp("equipped") / "checkpoint"
    save(*equipped("llama", EQUIPMENT["static"]), directory, {})
    return directory


@torch.no_grad()
def test_checkpoints_from_before_activations_still_load(saved, copied):
    rewrite(copied, lambda m: m.pop("additions"))
    assert torch.equal(load(copied)[0](TOKENS).logits, load(saved)[0](TOKENS).logits)


def test_saving_again_replaces_and_a_failed_save_leaves_the_old_one(copied, monkeypatch):
    before = (copied / "manifest.json").read_bytes()
    monkeypatch.setattr(checkpoint, "save_file", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(*quantized("llama"), copied, {})
    assert (copied / "manifest.json").read_bytes() == before
    assert [path.name for path in copied.parent.iterdir()] == ["copy"]
    monkeypatch.undo()
    save(*quantized("opt"), copied, {})
    assert load(copied)[0].config.model_type == "opt"


# --- damage
# ------------------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_found_and_its_file_named(copied):
    generator = random.Random(0)
    for path in sorted(copied.iterdir()):
        original = path.read_bytes()
        for _ in range(40):
            content, position = bytearray(original), generator.randrange(8 * len(original))
            content[position // 8] ^= 1 << position % 8
            path.write_bytes(content)
            with pytest.raises(UserError, match=f"{path.name}: damaged"):
                load(copied)
        path.write_bytes(original)
    load(copied)


def test_missing_files_are_named(copied):
    for path in sorted(copied.iterdir()):
        hidden = path.rename(copied.parent / path.name)
        with pytest.raises(UserError, match=f"{path.name}: missing"):
            load(copied)
        hidden.rename(path)
    with pytest.raises(UserError, match="is no quantized checkpoint"):
        load(copied.parent / "nowhere")


def rewrite(directory: Path, change) -> None:
    """Change a manifest and seal it again, as only someone who means to would."""
    manifest = read_manifest(directory)
    change(manifest)
    (directory / "manifest.json").write_bytes(seal(manifest))


LINEAR = "model.layers.0.mlp.up_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema=99), "schema 99"),
        (lambda m: m["files"].update({"../outside": "00"}), "outside the checkpoint"),
        (lambda m: m["files"].update({"/etc/hostname": "00"}), "outside the checkpoint"),
        (lambda m: m["files"].pop("quantized.safetensors"), "does not vouch for quantized.safetensors"),
        (lambda m: m.update(attention="evil/kernel"), "attention 'evil/kernel'"),
        (
            lambda m: m["linears"][LINEAR]["layout"].update(kind="magic"),
            "unknown kind of quantized weight 'magic'",
        ),
        (lambda m: m["linears"][LINEAR]["layout"].update(shape=[64, 128]), "do not fit"),
        (lambda m: m["linears"].pop(LINEAR), "is only on one side"),
        (lambda m: m["linears"].update({"model.nowhere": m["linears"].pop(LINEAR)}), "do not fit"),
        (lambda m: m["tied"].update({"model.norm.weight": "lm_head.weight"}), "do not fit"),
    ],
)
def test_manifests_that_lie_are_refused(copied, change, message):
    rewrite(copied, change)
    with pytest.raises(UserError, match=message) as caught:
        load(copied)
    assert "\n" not in str(caught.value)


ATTENTION = "model.layers.0.self_attn"
NORM = "model.layers.0.input_layernorm"


def format_of(m: dict) -> dict:
    return m["linears"][LINEAR]["activation"]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(additions=[]),
        lambda m: m.update(additions={"operands": 3}),
        lambda m: format_of(m).update(bits=99),
        lambda m: format_of(m).update(bits="4"),
        lambda m: format_of(m).update(bits=True),
        lambda m: format_of(m).update(symmetric=0),
        lambda m: format_of(m).update(range="galaxy"),
        lambda m: format_of(m).update(range="token"),  # but the end points are stored
        lambda m: format_of(m).update(code="evil"),
        lambda m: m["linears"][LINEAR].update(activation="w4a4"),
        lambda m: m["linears"][LINEAR].pop("activation"),
        lambda m: m["additions"]["operands"].pop(ATTENTION),
        lambda m: m["additions"]["operands"][ATTENTION].update(query=None),
        lambda m: m["additions"]["operands"][ATTENTION].pop("key"),
        lambda m: m["additions"]["operands"][ATTENTION].update(whole_tokens="yes"),
        lambda m: m["additions"]["operands"].update(
            {"model.norm": m["additions"]["operands"].pop(ATTENTION)}
        ),
        lambda m: m["additions"]["operands"].update(
            {"model.layers.0.nowhere": m["additions"]["operands"].pop(ATTENTION)}
        ),
        lambda m: m["additions"]["norms"].pop(NORM),
        lambda m: m["additions"]["norms"].update({NORM: ["inverse", "shift"]}),
        lambda m: m["additions"]["norms"].update({NORM: ["forward"]}),
        lambda m: m["additions"]["norms"].update({NORM: 7}),
        lambda m: m["additions"]["norms"].update({"model.layers.0.mlp": ["shift"]}),
        lambda m: m["additions"]["norms"].update({"model.norm": []}),
    ],
)
def test_additions_that_lie_are_refused(saved_equipped, tmp_path, change):
    directory = Path(shutil.copytree(saved_equipped, tmp_path / "copy"))
    rewrite(directory, change)
    with pytest.raises(UserError, match="do not fit") as caught:
        load(directory)
    assert "\n" not in str(caught.value)


def test_code_in_a_checkpoints_config_is_not_run(copied, tmp_path):
    ran, path = tmp_path / "ran", copied / "config.json"
    (copied / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoConfig": "evil.Config"}}))
    rewrite(copied, lambda m: m["files"].update({"config.json": checkpoint.sha256_file(path)}))
    model, _ = load(copied)
    assert type(model).__module__.startswith("transformers.") and not ran.exists()


def test_nothing_in_the_package_reads_pickles():
    forbidden = {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
    root = Path(checkpoint.__file__).parents[2]
    for path in [*(root / "harness").rglob("*.py"), *(root / "methods").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = {alias.name.split(".")[0] for alias in node.names} | {
                    (getattr(node, "module", None) or "").split(".")[0]
                }
                assert not modules & forbidden, path
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
            ):
                assert (node.func.value.id, node.func.attr) != ("torch", "load"), path
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, path
