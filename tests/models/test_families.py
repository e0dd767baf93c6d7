"""The table of families, and the capture of block inputs."""

import pytest
import torch
from transformers import BloomConfig, FalconConfig, GPT2Config, MixtralConfig

from harness.config.groups import Dtype
from harness.data import assets
from harness.foundation.errors import UserError
from harness.models import tiny
from harness.models.families import FAMILIES, check_coverage, family_of
from harness.models.loading import load_model
from harness.models.shape import inspect
from harness.quantization.blocks import ModelBlocks
from tests.helpers.tiny_models import VARIANTS, config, tokens


@torch.no_grad()
def replay(source: ModelBlocks, entry) -> torch.Tensor:
    """Hidden states of one batch after all blocks, run one by one from what was captured."""
    hidden = entry.hidden
    for block, call in zip(source, entry.calls, strict=True):
        hidden = block.run(hidden, call)
    return hidden


@torch.no_grad()
def finish(source: ModelBlocks, hidden, batch) -> torch.Tensor:
    """Logits from the last block's output, by the model's own norm and head."""
    *_, last = source

    def substitute(module, inputs, output):
        return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])

    handle = last.module.register_forward_hook(substitute)
    try:
        return source.model(batch).logits
    finally:
        handle.remove()


@pytest.fixture(scope="module", params=VARIANTS)
def loaded(request):
    return load_model(config(f"tiny:{request.param}"), "cpu")


# --- the table
# ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_groups_are_exactly_the_linears_that_share_an_input(loaded):
    source = ModelBlocks(loaded.model, loaded.family)
    (entry,) = source.capture(tokens(2), 2)
    for block, call in zip(source, entry.calls, strict=True):
        seen = {}

        def watch(path, seen=seen):
            return lambda module, inputs: seen.__setitem__(path, inputs[0])

        paths = [path for group in block.groups for path in group]
        handles = [block.module.get_submodule(path).register_forward_pre_hook(watch(path)) for path in paths]
        block.run(entry.hidden, call)
        for handle in handles:
            handle.remove()
        for group in block.groups:
            assert all(seen[path] is seen[group[0]] for path in group), group
        heads = [seen[group[0]] for group in block.groups]
        assert not any(
            a.shape == b.shape and torch.equal(a, b) for i, a in enumerate(heads) for b in heads[:i]
        )
        # first calls follow the order of the groups
        order = [list(seen).index(group[0]) for group in block.groups]
        assert order == sorted(order)


def test_falcon_groups_depend_on_the_layer_norms():
    shared = ("self_attention.query_key_value", "mlp.dense_h_to_4h")
    groups = FAMILIES["falcon"].groups
    assert shared in groups(FalconConfig())  # 7B
    assert shared in groups(FalconConfig(new_decoder_architecture=True, num_ln_in_parallel_attn=1))  # 11B
    assert shared not in groups(FalconConfig(new_decoder_architecture=True))  # 40B
    assert shared not in groups(FalconConfig(parallel_attn=False))  # RW-1B


def test_unnamed_matrices_and_missing_linears_are_refused():
    model, _ = tiny.tiny_model("llama")
    block = model.model.layers[1]
    block.mlp.adapter = torch.nn.Linear(64, 64)
    with pytest.raises(
        UserError, match=r"model\.layers\.1\.mlp\.adapter\.weight is not in the table.*% of the block"
    ):
        check_coverage(model, FAMILIES["llama"], model.config)
    del block.mlp.adapter, block.mlp.up_proj
    with pytest.raises(UserError, match=r"model\.layers\.1 has no linear 'mlp\.up_proj'"):
        check_coverage(model, FAMILIES["llama"], model.config)


def test_unknown_families_are_refused_with_what_would_stay_float():
    with pytest.raises(UserError, match=r"mixtral.*fused 3-D.*experts.*96\.\d% of its weights"):
        family_of(MixtralConfig())
    with pytest.raises(UserError, match=r"gpt2.*llama, mistral.*12 blocks at transformer\.h"):
        family_of(GPT2Config())
    with pytest.raises(UserError, match="slow_but_exact"):
        family_of(BloomConfig(pretraining_tp=4, slow_but_exact=True))


# --- capture and replay
# ------------------------------------------------------------------------------------------


@torch.no_grad()
def test_replayed_blocks_give_the_models_logits(loaded):
    source = ModelBlocks(loaded.model, loaded.family)
    samples = tokens(5)
    before = loaded.model(samples[:2]).logits
    entries = source.capture(samples, batch_size=2)
    assert [len(entry.hidden) for entry in entries] == [2, 2, 1]
    for entry, batch in zip(entries, samples.split(2), strict=True):
        assert torch.equal(finish(source, replay(source, entry), batch), loaded.model(batch).logits)
    assert torch.equal(loaded.model(samples[:2]).logits, before)


def test_capture_runs_no_block_but_the_first_on_one_sample(loaded):
    source, runs = ModelBlocks(loaded.model, loaded.family), []
    handles = [
        block.module.get_submodule(block.groups[0][0]).register_forward_pre_hook(
            lambda module, inputs, name=block.name: runs.append((name, len(inputs[0])))
        )
        for block in source
    ]
    entries = source.capture(tokens(4), 2)
    for handle in handles:
        handle.remove()
    assert runs == [(source.names()[0], 1)]
    for first, second in zip(entries[0].calls, entries[1].calls, strict=True):
        assert (
            not first.kwargs.get("use_cache")
            and first.kwargs.get("past_key_values") is None
            and first.kwargs.get("layer_past") is None
        )
        assert first is second  # equal masks and positions are kept once


def test_capture_restores_the_model_after_an_exception():
    loaded = load_model(config("tiny:llama"), "cpu")
    source = ModelBlocks(loaded.model, loaded.family)
    own = [dict(vars(block.module)) for block in source]
    with pytest.raises(IndexError):
        source.capture(torch.full((1, 8), 10_000), 1)
    handle = loaded.model.model.norm.register_forward_pre_hook(lambda *_: 1 / 0)  # behind the last block
    with pytest.raises(ZeroDivisionError):
        source.capture(tokens(1), 1)
    handle.remove()
    assert [dict(vars(block.module)) for block in source] == own


def test_a_block_called_twice_is_refused():
    loaded = load_model(config("tiny:llama"), "cpu")
    layers = loaded.model.model.layers
    layers[2] = layers[1]
    with pytest.raises(RuntimeError, match=r"model\.layers\.\d was called"):
        ModelBlocks(loaded.model, loaded.family).capture(tokens(1), 1)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gemma3", "bloom", "falcon_sequential"])
def test_bfloat16(name):
    loaded = load_model(config(f"tiny:{name}", Dtype.bfloat16), "cpu")
    source, batch = ModelBlocks(loaded.model, loaded.family), tokens(2)
    (entry,) = source.capture(batch, 2)
    assert entry.hidden.dtype == torch.bfloat16
    assert torch.equal(finish(source, replay(source, entry), batch), loaded.model(batch).logits)


def test_statistics_bytes():
    loaded = load_model(config("tiny:llama"), "cpu")
    assert ModelBlocks(loaded.model, loaded.family).statistics_bytes() == 3 * 4 * (3 * 64**2 + 128**2)


# --- the real thing
# ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_smollm2(warm_cache):
    if not assets.is_cached("smollm2-135m"):
        pytest.skip("smollm2-135m is not in the cache; fetch it with `ptq-bench assets --fetch smollm2-135m`")
    shape = inspect(config("asset:smollm2-135m"))
    assert (shape.family, len(shape.paths), shape.blocks, shape.context) == ("llama", 210, 30, 8192)
    assert (shape.parameters, shape.quantizable) == (134_515_008, 106_168_320)
    loaded = load_model(config("asset:smollm2-135m"), "cpu")
    source = ModelBlocks(loaded.model, loaded.family)
    batch = torch.tensor([loaded.tokenizer.encode("The capital of France is Paris. The capital of Italy is")])
    (entry,) = source.capture(batch, 1)
    logits = finish(source, replay(source, entry), batch)
    assert torch.equal(logits, loaded.model(batch).logits)
    assert loaded.tokenizer.decode(logits[0, -1].argmax()).strip() == "Rome"
