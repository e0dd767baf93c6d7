"""From a GGUF file to a checkpoint: the weights stay, marks of quantization go, nonsense is refused."""

import json
import os

import pytest
import torch

from harness.data import gguf_conversion
from harness.foundation.errors import UserError
from harness.foundation.hashes import sha256_file

HIDDEN, LAYERS, INNER, SOURCE = 64, 1, 96, {"asset": "tiny"}
gguf = pytest.importorskip("gguf")
pytest.importorskip("accelerate", reason="transformers needs accelerate to read GGUF files")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random Llama of one layer with one token per byte."""
    from tokenizers import pre_tokenizers

    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tokens = ["<s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(HIDDEN // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))  # 3: control
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, shape in _SHAPES.items():
        noise = torch.rand(shape, generator=torch.Generator().manual_seed(len(name))) - 0.5
        writer.add_tensor(name, noise.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


_SHAPES = {
    "token_embd.weight": (258, HIDDEN),
    "output_norm.weight": (HIDDEN,),
    "blk.0.attn_norm.weight": (HIDDEN,),
    "blk.0.ffn_norm.weight": (HIDDEN,),
    **{f"blk.0.attn_{kind}.weight": (HIDDEN, HIDDEN) for kind in ("q", "k", "v", "output")},
    **{f"blk.0.ffn_{kind}.weight": (INNER, HIDDEN) for kind in ("gate", "up")},
    "blk.0.ffn_down.weight": (HIDDEN, INNER),
}


def test_a_checkpoint_keeps_the_weights_and_names_its_source(tiny, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(gguf_conversion, "HIGHEST_LOSS", 100.0)
    gguf_conversion.convert(tiny, tmp_path, SOURCE)
    assert capfd.readouterr().err == ""  # no bars, no advice
    from safetensors.torch import load_file

    weights = load_file(tmp_path / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert "lm_head.weight" not in weights  # tied, stored once
    down = (
        torch.rand(HIDDEN, INNER, generator=torch.Generator().manual_seed(len("blk.0.ffn_down.weight"))) - 0.5
    )
    assert torch.equal(weights["model.layers.0.mlp.down_proj.weight"], down)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["source"] == SOURCE and set(manifest["files"]) == set(os.listdir(tmp_path)) - {
        "manifest.json"
    }
    for name, file in manifest["files"].items():
        assert (
            sha256_file(tmp_path / name) == file["sha256"]
            and (tmp_path / name).stat().st_size == file["bytes"]
        )


def test_a_model_that_cannot_read_is_refused(tiny, tmp_path):
    with pytest.raises(
        UserError, match=r"tiny\.gguf converted to a model that cannot read English.*constraints.txt"
    ):
        gguf_conversion.convert(tiny, tmp_path, SOURCE)
    assert not (tmp_path / "manifest.json").exists()


def test_a_missing_reader_is_told(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_conversion.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install gguf"):
        gguf_conversion.convert(tiny, tmp_path, SOURCE)
