"""Directories that another tool wrote or that hold more than belongs there: what transformers itself reads
right is read the same way, the rest is refused by name before a weight is read.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from harness.checkpoints import checkpoint as quantized
from harness.config.groups import Dtype
from harness.foundation.errors import UserError
from harness.models import tiny
from harness.models.loading import check_files, load_model
from harness.models.reading import read_tokenizer
from tests.helpers.tiny_models import config, tokens
from tests.models.test_loading import damage_config, edit_weights, index

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def directory(tmp_path):
    return written(tmp_path / "model")


def written(place, **options):
    """A LLaMA as transformers writes it."""
    torch.manual_seed(0)
    common = {"vocab_size": 288, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**common | {"num_hidden_layers": 2} | options))
    model.save_pretrained(place)
    tiny.byte_tokenizer().save_pretrained(place)
    return place


def refused(directory, match, dtype=Dtype.float32, **settings):
    """`plan` refuses as `run` does, in one line."""
    for act in (check_files, lambda asked: load_model(asked, "cpu")):
        check_files.cache_clear()
        with pytest.raises(UserError, match=match) as caught:
            act(config(directory, dtype, **settings))
        assert "\n" not in str(caught.value)


@torch.no_grad()
def logits(directory):
    check_files.cache_clear()
    check_files(config(directory))
    return load_model(config(directory), "cpu").model(tokens(1)).logits


# --- tensors without a place, places without a tensor


def test_attention_biases_that_config_json_denies_are_refused(tmp_path):
    directory = written(tmp_path, attention_bias=True)
    damage_config(attention_bias=False)(directory)
    refused(directory, r"no place for model\.layers\.0\.self_attn\.k_proj\.bias, .* and 5 more")


def test_blocks_that_config_json_does_not_count_are_refused(tmp_path):
    directory = written(tmp_path, num_hidden_layers=12)
    damage_config(num_hidden_layers=2)(directory)
    refused(
        directory,
        r"no place for model\.layers\.2\..*, model\.layers\.2\..*, model\.layers\.2\..* and 87 more",
    )


def test_fewer_blocks_than_config_json_counts_are_refused(directory):
    damage_config(num_hidden_layers=3)(directory)
    refused(directory, r"lack model\.layers\.2\..* and 6 more")


def test_a_head_of_its_own_beside_tied_embeddings_is_read_or_refused(tmp_path):
    """What transformers does with it: tied wins, or both are kept; never a model of random numbers."""
    directory = written(tmp_path, tie_word_embeddings=True)
    wanted = logits(directory)
    edit_weights(lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))(directory)
    assert torch.equal(logits(directory), wanted)


def test_names_that_transformers_declares_ignorable_are_ignored(directory):
    wanted = logits(directory)
    old = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(16) for i in range(2)}
    edit_weights(lambda tensors: tensors.update(old))(directory)
    assert torch.equal(logits(directory), wanted)


def test_an_index_may_promise_a_tied_head_that_no_shard_holds(tmp_path):
    directory = written(tmp_path, tie_word_embeddings=True)
    wanted = logits(directory)
    index(lambda names: names.update({"lm_head.weight": "model-00002-of-00002.safetensors"}))(directory)
    assert torch.equal(logits(directory), wanted)


def test_an_index_may_not_promise_a_head_of_its_own_that_no_shard_holds(directory):
    edit_weights(lambda tensors: tensors.pop("lm_head.weight"))(directory)
    index(lambda names: names.update({"lm_head.weight": "model-00002-of-00002.safetensors"}))(directory)
    refused(directory, "lack lm_head.weight")


def foreign(tensors):
    name = UP.removesuffix("weight")
    del tensors[UP]
    tensors |= {f"{name}qweight": torch.zeros(8, 96, dtype=torch.int32), f"{name}scales": torch.ones(1, 96)}


def packed(tensors):
    tensors[UP] = tensors[UP].to(torch.uint8)


@pytest.mark.parametrize("change", [foreign, packed])
def test_a_foreign_file_beside_the_shards_is_named(directory, change):
    index(keep_single=True)(directory)
    edit_weights(change)(directory)
    refused(directory, r"model\.safetensors is read, not the shards of .*index\.json.*remove the stray one")


# --- numbers that are none


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_named(directory, value):
    def damage(tensors):
        tensors[UP][3, 4] = value

    edit_weights(damage)(directory)
    check_files(config(directory))  # headers tell nothing
    with pytest.raises(UserError, match=rf"{UP}\[3, 4\] is {value}: the weights are damaged"):
        load_model(config(directory), "cpu")


def test_a_weight_beyond_float16_is_named_with_what_holds_it(directory):
    def damage(tensors):
        tensors[UP][3, 4] = 1e5

    edit_weights(damage)(directory)
    with pytest.raises(UserError, match=rf"{UP}\[3, 4\] is inf in float16.*model.dtype=bfloat16 or float32"):
        load_model(config(directory, Dtype.float16), "cpu")
    assert load_model(config(directory, Dtype.bfloat16), "cpu").model.dtype is torch.bfloat16


# --- code and kernels that files ask for


CODE = {
    "in config.json": ("config.json", {"auto_map": {"AutoModelForCausalLM": "modeling_x.LlamaForCausalLM"}}),
    "for the config": ("config.json", {"auto_map": {"AutoConfig": "modeling_x.Config"}}),
    "elsewhere": ("config.json", {"auto_map": {"AutoConfig": "someone/else--modeling_x.Config"}}),
    "null": ("config.json", {"auto_map": None}),
    "for the tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["modeling_x.T", None]}}),
    "null in the tokenizer": ("tokenizer_config.json", {"auto_map": None}),
}


@pytest.mark.parametrize("name", CODE)
def test_where_transformers_has_the_class_code_in_the_checkpoint_is_not_run(directory, tmp_path, name):
    wanted, text = logits(directory), read_tokenizer(directory).encode("some text")
    file, keys = CODE[name]
    (directory / "modeling_x.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    path = directory / file
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    assert torch.equal(logits(directory), wanted)
    assert read_tokenizer(directory).encode("some text") == text
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "key", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"]
)
@pytest.mark.parametrize(
    "value", ["flash_attention_2", "eager", "flex_attention", "someone/kernel", "nonsense"]
)
def test_attention_is_computed_as_we_choose_whatever_the_file_says(directory, tmp_path, key, value):
    damage_config(**{key: value})(directory)
    loaded = load_model(config(directory), "cpu")
    assert loaded.model.config._attn_implementation == "sdpa"
    quantized.save(loaded.model, loaded.tokenizer, tmp_path / "saved", {})
    assert value not in (tmp_path / "saved" / "config.json").read_text()
    assert quantized.load(tmp_path / "saved")[0].config._attn_implementation == "sdpa"


# --- tokenizers that were saved while in use


def test_truncation_and_padding_that_were_saved_with_a_tokenizer_do_nothing(directory):
    text = "a text that is longer than eight bytes"
    wanted = read_tokenizer(directory).encode(text)
    path = directory / "tokenizer.json"
    kept = json.loads(path.read_text())
    cut = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    fill = {
        "strategy": {"Fixed": 64},
        "direction": "Left",
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    path.write_text(json.dumps(kept | {"truncation": cut, "padding": fill | {"pad_to_multiple_of": None}}))
    tokenizer = read_tokenizer(directory)
    assert tokenizer.encode(text) == wanted == tokenizer.backend_tokenizer.encode(text).ids


# --- oddities that change nothing


ODD = {
    "stray safetensors": lambda d: save_file({"x": torch.zeros(1)}, d / "adapter.safetensors"),
    "generation config": lambda d: (d / "generation_config.json").write_text('{"temperature": "hot"}'),
    "training state": lambda d: (d / "optimizer.pt").write_bytes(b"x"),
    "dtype in the config": lambda d: damage_config(dtype="float16", torch_dtype="bfloat16")(d),
    "use_cache": lambda d: damage_config(use_cache=True, output_attentions=True, output_hidden_states=True)(
        d
    ),
    "pruned": lambda d: damage_config(quantization_config=None)(d),
}


@pytest.mark.parametrize("name", ODD)
def test_what_does_not_concern_the_weights_changes_nothing(directory, name):
    wanted = logits(directory)
    ODD[name](directory)
    assert torch.equal(logits(directory), wanted)


def test_shards_behind_links_are_read(directory, tmp_path):
    wanted = logits(directory)
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in directory.iterdir():
        (linked / path.name).symlink_to(path)
    assert torch.equal(logits(linked), wanted)


def test_shards_of_different_types_are_read_in_one(directory):
    half = {k: t.half() for k, t in load_file(directory / "model.safetensors").items()}
    save_file(
        {k: t.float() for k, t in half.items()}, directory / "model.safetensors", metadata={"format": "pt"}
    )
    wanted = logits(directory)
    index()(directory)
    path = directory / "model-00001-of-00002.safetensors"
    save_file({k: t.half() for k, t in load_file(path).items()}, path, metadata={"format": "pt"})
    assert torch.equal(logits(directory), wanted)
    shutil.rmtree(directory)
