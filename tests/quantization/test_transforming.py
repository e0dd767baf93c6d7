"""Transforms and quantized activations inside the walk over the blocks, in records, on disk, and under the
sweep's rules.
"""

import json
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from harness.checkpoints.saved_runs import load_run
from harness.cli import main
from harness.commands.load import check
from harness.config.compose import FOLDER, method_config
from harness.config.groups import DataConfig, Propagate
from harness.config.method_builder import build_method
from harness.models import tiny
from harness.models.families import FAMILIES, family_of
from harness.quantization.batches import Batch, home_of
from harness.quantization.blocks import ModelBlocks
from harness.quantization.divergence import Diverged, SolveError
from harness.quantization.hessian_cache import StatisticsCache
from harness.quantization.hessians import gather_only
from harness.quantization.layer_reports import BlockReport, LayerReport, Walked, summary
from harness.quantization.pipeline import quantize
from harness.quantization.walk import Walk
from methods.contracts.method import Method
from methods.contracts.problem import LayerProblem, Ranges
from methods.contracts.scheme import ActRange
from methods.contracts.transform import Transformed
from methods.contracts.tuning import Sample
from methods.rtn import RTN
from methods.solving.linalg import layer_error
from methods.solving.ranges import find_grid
from methods.weights.stored import UniformWeight
from tests.helpers.problems import scheme
from tests.helpers.tiny_models import tokens

OUTPUT = "self_attn.o_proj"
POINT = [
    "isolate=false",
    "model=tiny-llama",
    "data=synthetic",
    "eval=smoke",
    "data.samples=4",
    "eval.windows=2",
    "data.window=64",
]
SMALL = ["method/transform=affinequant_small", "method.transform.epochs=2"]


@dataclass
class Watching:
    """A transform that changes nothing and keeps what it was handed."""

    auxiliary_loss: bool = False
    seen: list = field(default_factory=list)

    def skip_reason(self, scheme, seams):
        return None

    def apply_(self, block, samples, scheme, watch):
        self.seen.append(list(samples))
        watch(1, 1, "looked")
        return Transformed(stats={"looks": 1.0}, fallbacks=("nothing was done",))


def walk(
    tmp_path, method, of_scheme, propagate=Propagate.float, block_error=False, note=lambda index, text: None
):
    model, _ = tiny.tiny_model("llama")
    source = ModelBlocks(model, family_of(model.config))
    data = DataConfig("synthetic", 8, 32, 4, propagate, True, block_error, None)
    cache = StatisticsCache(
        tmp_path, "key", len(source), source.statistics_bytes(), 1.0 if propagate is Propagate.float else 0.0
    )
    reports = list(quantize(Walk(source, method, of_scheme, data, cache, note), lambda: tokens(8, 32)))
    return (
        model,
        [r for r in reports if isinstance(r, LayerReport)],
        [r for r in reports if isinstance(r, BlockReport)],
    )


@torch.no_grad()
def float_states() -> list[list[torch.Tensor]]:
    """Hidden states of the float model before each block and after the last, per batch of 4."""
    model, _ = tiny.tiny_model("llama")
    source = ModelBlocks(model, family_of(model.config))
    entries = source.capture(tokens(8, 32), 4)
    states = [[entry.hidden for entry in entries]]
    for index, block in enumerate(source):
        states.append(
            [block.run(hidden, entry.calls[index]) for hidden, entry in zip(states[-1], entries, strict=True)]
        )
    return states


@pytest.mark.parametrize("propagate", Propagate)
def test_transforms_aim_at_the_float_model(propagate, tmp_path):
    watching, notes = Watching(auxiliary_loss=True), []
    method = Method("m", RTN(), transform=watching)
    walk(tmp_path, method, scheme(bits=2), propagate, note=lambda index, text: notes.append((index, text)))
    states = float_states()
    for index, samples in enumerate(watching.seen):
        for sample, before, after in zip(samples, states[index], states[index + 1], strict=True):
            torch.testing.assert_close(sample.target, after)
            assert torch.equal(sample.hidden, before) == (propagate is Propagate.float or index == 0)
            assert (sample.own_target is None) == (propagate is Propagate.float)
            if sample.own_target is not None and index:
                assert not torch.allclose(sample.own_target, sample.target)
    assert (1, "step 1/1 looked") in notes


@pytest.mark.parametrize("propagate", Propagate)
def test_the_error_of_a_block_is_that_of_its_output(propagate, tmp_path):
    """Against the float model's stream; measured by hand on the last block."""
    model, _, blocks = walk(tmp_path, Method("m", RTN()), scheme(bits=2), propagate, block_error=True)
    states = float_states()
    source = ModelBlocks(model, family_of(model.config))
    hidden, wrong, size = [], 0.0, 0.0
    with torch.no_grad():
        for entry, before, after in zip(
            source.capture(tokens(8, 32), 4), states[-2], states[-1], strict=True
        ):
            hidden = entry.hidden
            for index, block in enumerate(source):
                hidden = block.run(
                    before if propagate is Propagate.float and index == len(source) - 1 else hidden,
                    entry.calls[index],
                )
            wrong, size = (
                wrong + (hidden - after).double().square().sum(),
                size + after.double().square().sum(),
            )
    assert blocks[-1].error == pytest.approx((wrong / size).item(), rel=1e-6)
    assert [block.block for block in blocks] == [0, 1, 2] and blocks[0].multiply_adds == blocks[
        0
    ].extra_bytes == 0


def test_reports_of_blocks_tell_what_the_transform_told(tmp_path):
    _, layers, blocks = walk(tmp_path, Method("m", RTN(), transform=Watching()), scheme(bits=2))
    assert [block.fallback for block in blocks] == ["nothing was done"] * 3 and blocks[0].stats == {
        "looks": 1.0
    }
    _, plain, none = walk(tmp_path, Method("m", RTN()), scheme(bits=2))
    assert not none and [layer.error for layer in layers] == [layer.error for layer in plain]


def test_the_losses_of_epochs_are_columns_of_their_own(tmp_path):
    """Neither in the summary nor among the stats, in the order of the epochs, and the same after a stop and a
    restart.
    """
    told = Transformed(
        stats={"loss_after": 0.5}
        | {f"loss_epoch_{epoch}": 1 / epoch for epoch in (10, 9, 8, 7, 6, 5, 4, 3, 2, 1)}
    )

    class Training(Watching):
        def apply_(self, block, samples, scheme, watch):
            return told

    _, layers, blocks = walk(tmp_path, Method("m", RTN(), transform=Training()), scheme(bits=2))
    row = blocks[0].row()
    assert [name for name in row if "loss" in name] == [
        "stats.loss_after",
        *(f"loss_epoch_{epoch}" for epoch in range(1, 11)),
    ]
    assert (
        row["loss_epoch_10"] == 0.1 and BlockReport(**json.loads(json.dumps(asdict(blocks[0])))).row() == row
    )
    assert summary(Walked(layers, blocks))["transform"].keys() == {"loss_after"}


def test_the_first_step_of_training_meets_the_start():
    """One epoch of one batch: its loss is the loss before; more of them bring it down, and a mean is over all
    batches.
    """
    model, _ = tiny.tiny_model("llama")
    source = ModelBlocks(model, family_of(model.config))
    block, entries = next(iter(source)), source.capture(tokens(6, 32), 4)
    with torch.no_grad():
        samples = [
            Sample(entry.hidden, entry.calls[0], block.run(entry.hidden, entry.calls[0])) for entry in entries
        ]
    assert [len(sample.hidden) for sample in samples] == [4, 2]
    small = build_method(method_config("rtn", "method/transform=omniquant_small")).transform

    def stats(samples, **changes):
        fresh = replace(block, module=deepcopy(block.module))
        return (
            replace(small, **changes)
            .apply_(fresh, samples, scheme(bits=2), lambda done, total, text: None)
            .stats
        )

    once = stats(samples[:1], epochs=1)
    assert once["loss_epoch_1"] == pytest.approx(once["loss_before"], rel=1e-6) and "loss_epoch_2" not in once
    still = stats(samples, epochs=2, matrix_rate=1e-12, clip_rate=1e-12)
    assert still["loss_epoch_1"] == pytest.approx(still["loss_before"], rel=1e-5), (
        "batches count by their size"
    )
    longer = stats(samples, epochs=4)
    assert longer["loss_epoch_4"] < longer["loss_epoch_1"] < 1.5 * longer["loss_before"]
    assert not any(name.startswith("loss_epoch") for name in stats(samples, epochs=0))


def test_what_a_transform_breaks_is_reported(tmp_path):
    class Breaking(Watching):
        def apply_(self, block, samples, scheme, watch):
            block.module.mlp.up_proj.weight.data[0, 0] = float("nan")
            return Transformed()

    class Raising(Watching):
        def apply_(self, block, samples, scheme, watch):
            raise RuntimeError("no such thing")

    with pytest.raises(Diverged, match=r"model\.layers\.0\.mlp\.up_proj\.weight: Breaking"):
        walk(tmp_path, Method("m", RTN(), transform=Breaking()), scheme(bits=2))
    with pytest.raises(SolveError, match=r"model\.layers\.0: Raising: RuntimeError: no such thing"):
        walk(tmp_path, Method("m", RTN(), transform=Raising()), scheme(bits=2))


@pytest.mark.parametrize("act_range", ActRange)
def test_statistics_of_quantized_activations(act_range, tmp_path):
    """With propagate=quantized Hessians are of what the rounded linear will read; with float they are the
    float model's, so shared.
    """
    of_scheme = scheme(bits=4, act_bits=3, act_range=act_range)
    float_acts = replace(of_scheme, act_bits=None)
    shared = [walk(tmp_path, Method("m", RTN()), s)[1][3].error for s in (of_scheme, float_acts)]
    assert shared[0] == shared[1]
    own = [
        walk(tmp_path, Method("m", RTN()), s, Propagate.quantized)[1][0].error
        for s in (of_scheme, float_acts)
    ]
    assert own[0] != own[1]


@pytest.fixture(scope="module", params=["smoothquant", "awq", "omniquant_small", "affinequant_small"])
def transformed(request):
    """A block of a tiny model after each transform, what it found, and the Hessian of what its output
    projection reads.
    """
    transform = build_method(method_config("rtn", f"method/transform={request.param}")).transform
    model, _ = tiny.tiny_model("llama")
    source = ModelBlocks(model, family_of(model.config))
    block, entries = next(iter(source)), source.capture(tokens(4, 32), 4)
    with torch.no_grad():
        samples = [
            Sample(entry.hidden, entry.calls[0], block.run(entry.hidden, entry.calls[0])) for entry in entries
        ]
    found = transform.apply_(block, samples, scheme(bits=3), lambda done, total, text: None)
    batches = [Batch(entry.hidden, entry.calls) for entry in entries]
    return block, found, gather_only(block, batches, [(OUTPUT,)])[OUTPUT].hessian


@pytest.mark.parametrize("solver", sorted(path.stem for path in (FOLDER / "solver").glob("*.yaml")))
def test_any_transform_serves_any_solver(transformed, solver):
    block, found, hessian = transformed
    weight = block.module.get_submodule(OUTPUT).weight.float()
    chosen = build_method(method_config("rtn", f"method/solver={solver}")).solver
    problem = LayerProblem(weight, hessian, scheme(bits=3), found.ranges.get(OUTPUT))
    if reason := chosen.skip_reason(problem.scheme):
        pytest.skip(reason)
    solution = chosen.solve(problem)
    plain = RTN().solve(replace(problem, ranges=None)).weight.dequantize()
    assert layer_error(weight, solution.weight.dequantize(), hessian) <= 1.05 * layer_error(
        weight, plain, hessian
    )
    if isinstance(solution.weight, UniformWeight) and found.ranges and solver in ("rtn", "gptq", "quantease"):
        expected = find_grid(problem)
        assert torch.equal(solution.weight.grid.scale, expected.scale), "rounded on the grid that was learned"


def test_end_points_that_codebooks_cannot_use_are_reported(tmp_path):
    class Learning(Watching):
        def apply_(self, block, samples, scheme, watch):
            weight = block.module.get_submodule(OUTPUT).weight
            return Transformed({OUTPUT: Ranges(weight.amin(1, keepdim=True), weight.amax(1, keepdim=True))})

    vptq = build_method(method_config("vptq")).solver
    _, layers, _ = walk(tmp_path, Method("m", vptq, transform=Learning()), scheme(bits=2))
    assert {layer.linear for layer in layers if "codebooks" in (layer.fallback or "")} == {OUTPUT}


def record_of(results: Path, status: str = "done") -> tuple[str, dict]:
    found = [(path.parent.name, json.loads(path.read_text())) for path in results.glob("runs/*/record.json")]
    return next(
        (key, record)
        for key, record in found
        if record["method"]["name"] != "float" and record["status"] == status
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=affinequant", *SMALL, "method.transform.shift=everywhere", "scheme=w3a16"],
        ["method=affinequant", *SMALL, "scheme=w4a4", "method/solver=gptq", "data.propagate=quantized"],
        ["method=awq", "method/solver=gptq", "scheme=w2a16g64", "scheme.group_size=32"],
        ["method=rtn", "scheme=w8a8", "scheme.act_range=tensor", "scheme.kv_bits=4", "data.block_error=true"],
    ],
    ids=lambda overrides: " ".join(overrides[-3:]),
)
def test_a_run_and_its_saved_model(overrides, tmp_path):
    assert main(["run", *POINT, *overrides, "save=true", f"paths.results={tmp_path}"]) == 0
    key, record = record_of(tmp_path)
    assert all(new == old for _, new, old, _ in check(load_run(key, tmp_path))), (
        "the saved model has the run's numbers"
    )
    blocks = pd.read_parquet(tmp_path / "runs" / key / "blocks.parquet")
    assert record["block_error"]["mean"] == pytest.approx(blocks["error"].mean())
    epochs = [name for name in blocks if name.startswith("loss_epoch")]
    assert epochs == (["loss_epoch_1", "loss_epoch_2"] if "method=affinequant" in overrides else [])
    assert not any("epoch" in name for name in record["transform"] or ())
    layers = pd.read_parquet(tmp_path / "runs" / key / "layers.parquet")
    numel = layers.out_features * layers.in_features
    bits = (layers.bits * numel).sum() + 8 * blocks.extra_bytes.sum()
    assert record["bits_per_weight"] == pytest.approx(bits / numel.sum())
    # two matrices and shifts of 64 in float16, and float32 biases, in blocks that learned anything
    if "scheme=w3a16" in overrides:
        biases = 64 + 2 * 32 + 64 + 2 * 128
        assert set(blocks.extra_bytes) | {0} == {0, 2 * (2 * 64 * 64 + 2 * 64) + 4 * biases}
        matrices = (blocks.extra_bytes > 0).sum() * 2 * 64 * 64
        assert record["runtime_overhead"] == {
            "multiply_adds_per_token": matrices,
            "share": matrices / numel.sum(),
        }
    else:
        assert record["runtime_overhead"]["multiply_adds_per_token"] == 0


def test_pairs_that_make_no_sense_are_skipped_with_a_reason(tmp_path, monkeypatch):
    general = ["method=affinequant", *SMALL, "scheme=w4a4", "method.transform.rotated_matrices=full"]
    assert main(["run", *POINT, *general, f"paths.results={tmp_path}"]) == 0
    assert "RoPE" in record_of(tmp_path, "skipped")[1]["reason"]
    bare = replace(FAMILIES["llama"], seams=lambda config: (), attention=lambda config: None)
    monkeypatch.setitem(FAMILIES, "llama", bare)
    from harness.models import shape

    shape._shape.cache_clear()
    for place, (overrides, words) in enumerate(
        [
            (["method=rtn", "scheme=w4a4"], "queries, keys and values"),
            (["method=smoothquant", "scheme=w4"], "no seams"),
        ]
    ):
        assert main(["run", *POINT, *overrides, f"paths.results={tmp_path / str(place)}"]) == 0
        assert words in record_of(tmp_path / str(place), "skipped")[1]["reason"]
    shape._shape.cache_clear()


def test_hidden_states_move_to_the_host_when_they_do_not_fit(monkeypatch):
    class OnGpu:
        device, nbytes = torch.device("cuda", 0), 100

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    assert home_of([OnGpu()] * 2, copies=2).type == "cuda"
    assert home_of([OnGpu()] * 2, copies=3).type == "cpu"
    assert home_of([torch.zeros(1)], copies=3).type == "cpu"
