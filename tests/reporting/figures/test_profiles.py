"""Errors along the depth and losses by epoch: what is read of the runs, and what is drawn of it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.records.measurements import Profiles
from harness.reporting.figures import profiles as profiles_module
from harness.reporting.figures.loss_curves import loss_picture
from harness.reporting.figures.profiles import _ratio, blocks_picture, layer_pictures
from harness.reporting.figures.series import Run, chosen, groups_of, labelled
from harness.reporting.frames import load_records
from harness.reporting.keys import RowKey
from tests.helpers.invented_records import record, store

KINDS = ("self_attn.q_proj", "mlp.down_proj")


def leave(results: Path, key: str, error: float = 0.1, blocks: int = 3, **columns) -> None:
    """The tables of a run: errors grow with the block."""
    rows = [
        {"block": block, "linear": kind, "error": error * (block + 1)}
        for block in range(blocks)
        for kind in KINDS
    ]
    pd.DataFrame(rows).to_parquet(results / "runs" / key / "layers.parquet", index=False)
    table = {"block": range(blocks), "error": [error] * blocks} | {
        name.replace("__", "."): value for name, value in columns.items()
    }
    pd.DataFrame(table).to_parquet(results / "runs" / key / "blocks.parquet", index=False)


def models_of(results: Path, *records: dict):
    return labelled(load_records(store(results, *records)).frame)


def test_errors_are_read_by_kind_and_block(tmp_path):
    store(tmp_path, record("a"))
    leave(tmp_path, "a", 0.2)
    found = Profiles(tmp_path).layer_errors("a")
    assert list(found) == ["q_proj", "down_proj"]
    assert found["q_proj"][0].tolist() == [0, 1, 2] and found["q_proj"][1] == pytest.approx([0.2, 0.4, 0.6])


@pytest.mark.parametrize("content", [b"", b"PAR1 no table", None])
def test_what_is_damaged_or_missing_counts_as_not_kept(tmp_path, content):
    store(tmp_path, record("a"))
    if content is not None:
        for name in ("layers", "blocks"):
            (tmp_path / "runs" / "a" / f"{name}.parquet").write_bytes(content)
    profiles = Profiles(tmp_path)
    assert profiles.layer_errors("a") == {} and profiles.blocks("a") is None and profiles.losses("a") is None


def test_tables_of_another_shape_are_not_believed(tmp_path):
    store(tmp_path, record("a"))
    pd.DataFrame({"block": ["x", None], "error": [1, 2]}).to_parquet(
        tmp_path / "runs" / "a" / "blocks.parquet"
    )
    pd.DataFrame({"error": [1, 2]}).to_parquet(tmp_path / "runs" / "a" / "layers.parquet")
    assert Profiles(tmp_path).blocks("a") is None and Profiles(tmp_path).layer_errors("a") == {}


def test_losses_are_in_the_order_of_blocks_and_epochs(tmp_path):
    store(tmp_path, record("a"))
    losses = {f"loss_epoch_{epoch}": [epoch + block / 10 for block in (2, 0, 1)] for epoch in (10, 2, 1)}
    table = {"block": [2, 0, 1], "error": [0.1] * 3, "loss_epoch_x": [1.0] * 3, "stats.loss_after": [1.0] * 3}
    pd.DataFrame(table | losses).to_parquet(tmp_path / "runs" / "a" / "blocks.parquet")
    assert Profiles(tmp_path).losses("a").tolist() == [[1.0, 2.0, 10.0], [1.1, 2.1, 10.1], [1.2, 2.2, 10.2]]


def test_only_what_is_comparable_is_in_one_group(tmp_path):
    runs = [record(f"{m}{b}", m, b, 40.0) for m in ("rtn", "gptq") for b in (3, 2)]
    runs += [record("s", "gptq", 3, 41.0, seed=1), record("c", "gptq", 3, 41.0, data__samples=8), record("f", "float", None, 30.0),  # noqa: E501
             record("x", "gptq", 3, 40.0, layer_error=None), record("o", "rtn", 3, 40.0, model__fingerprint="sha256:other")]  # fmt: skip  # noqa: E501
    groups = groups_of(models_of(tmp_path, *runs), "layer_error.mean")
    found = [
        (group.column.label, "samples=8" in group.calibration, sorted(run.place for run in group.runs))
        for group in groups
    ]
    assert sorted(found) == [
        ("2", False, ["gptq2", "rtn2"]),
        ("3", False, ["gptq3", "rtn3"]),
        ("3", False, ["o"]),
        ("3", True, ["c"]),
    ]


def test_every_method_is_chosen_once_before_any_twice():
    runs = tuple(Run(RowKey(m, (("x", f"x={n}"),)), "p") for m in ("rtn", "gptq", "new") for n in range(3))
    kept = chosen(runs, 4)
    assert {run.method for run in kept} == {"rtn", "gptq", "new"} and len(kept) == 4
    assert kept == [run for run in runs if run in kept], "in the order of a table"
    better = Run(RowKey("rtn", (("x", "x=9"),)), "p", 0.1)
    assert better in chosen((*runs, better), 3), "of settings as plain, the one with the least error"


def test_quantease_is_compared_with_gptq_under_the_same_setting():
    def errors(value):
        return {
            "q_proj": (np.arange(3.0), np.full(3, value)),
            "k_proj": (np.arange(3.0), np.array([value, 0.0, np.nan])),
        }

    runs = [("gptq", ("a=1",), "x", 4.0), ("gptq", ("b=2",), "y", 8.0), ("gptq", ("b=3",), "y", 6.0),
            ("quantease", (), "y", 2.0), ("rtn", (), "y", 9.0)]  # fmt: skip
    entries = [
        (Run(RowKey(method, tuple((word, word) for word in words)), "p", value, scheme), errors(value))
        for method, words, scheme, value in runs
    ]
    title, ratios = _ratio(entries)
    assert title == "quantease ÷ gptq · b=3", "the better one of those under the same scheme"
    assert ratios["q_proj"][1] == pytest.approx([1 / 3] * 3)
    assert ratios["k_proj"][1][0] == pytest.approx(1 / 3) and np.isnan(ratios["k_proj"][1][1:]).all()
    assert _ratio(entries[:1] + entries[3:]) is None, "another scheme is no comparison"


def test_pictures_of_layers_say_what_they_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(profiles_module, "PICTURES", 1)
    monkeypatch.setattr(profiles_module, "LINES", 3)
    runs = [record(f"{m}{b}", m, b, 40.0) for m in [f"m{n}" for n in range(5)] for b in (2, 3)]
    models = models_of(tmp_path, *runs)
    for entry in runs:
        leave(tmp_path, entry["run_key"])
    made = layer_pictures(models, Profiles(tmp_path))
    assert len(made) == 1 and "Shown are 1 of 2 bit widths" in made[0].caption
    assert "3 of 5 runs are drawn" in made[0].caption


def test_blocks_and_losses_are_drawn_where_they_were_kept(tmp_path):
    transform = {"_target_": "methods.omniquant.OmniQuant", "epochs": 2}
    runs = [
        record(m, m, 3, 40.0, block_error={"mean": 0.1, "max": 0.2}, method__transform=transform)
        for m in ("omniquant", "affinequant")
    ]
    models = models_of(tmp_path, *runs)
    leave(
        tmp_path,
        "omniquant",
        stats__loss_before=[3.0] * 3,
        stats__loss_after=[2.0] * 3,
        loss_epoch_1=[3.0] * 3,
        loss_epoch_2=[2.5, 2.5, 2.5],
    )
    leave(tmp_path, "affinequant", 0.3)
    profiles = Profiles(tmp_path)
    assert "0.1" in blocks_picture(models, profiles).alt and "0.3" in blocks_picture(models, profiles).alt
    picture = loss_picture(models, profiles)
    assert "3 in the first epoch, 2.5 in the last" in picture.alt and "1 of 2 runs" in picture.caption
    for path in tmp_path.glob("runs/*/blocks.parquet"):
        path.unlink()
    assert (
        blocks_picture(models, Profiles(tmp_path)) is None
        and loss_picture(models, Profiles(tmp_path)) is None
    )


def test_odd_losses_are_drawn_or_left_out(tmp_path):
    runs = [
        record(f"r{n}", f"m{n}", 3, 40.0, method__transform={"_target_": "m.T", "epochs": 2})
        for n in range(3)
    ]
    models = models_of(tmp_path, *runs)
    leave(tmp_path, "r0", blocks=1, loss_epoch_1=[0.5])
    leave(tmp_path, "r1", loss_epoch_1=[np.nan, 0.1, np.inf], loss_epoch_2=[np.nan, 0.2, 0.1])
    leave(tmp_path, "r2", loss_epoch_1=[0.0, -1.0, np.nan])
    assert loss_picture(models, Profiles(tmp_path)).alt.count("in the first epoch") == 2
