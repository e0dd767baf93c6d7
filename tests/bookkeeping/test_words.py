"""What schemes are called: on the progress line, in the heads of a report's columns, and when a checkpoint is
loaded.
"""

import math

import pandas as pd
import pytest
import torch
import yaml

from harness.bookkeeping.words import scheme_label
from harness.config.compose import CONF, scheme_named
from harness.reporting.keys import ColumnKey, without_idle
from methods.contracts.scheme import ActRange, RangeRule, ZeroPoint
from tests.helpers.problems import scheme


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"bits": 4, "act_bits": 4}, "w4 a4 minmax"),
        ({"bits": 3, "group_size": 64, "kv_bits": 8}, "w3 g64 kv8 minmax"),
        (
            {"bits": 4, "act_bits": 6, "kv_bits": 2, "act_range": ActRange.tensor},
            "w4 a6 kv2 minmax, static activations",
        ),
        (
            {"bits": 8, "act_bits": 8, "act_symmetric": True, "act_range": ActRange.tensor},
            "w8 a8 minmax, static symmetric activations",
        ),
        ({"bits": 8, "act_symmetric": True, "act_range": ActRange.tensor}, "w8 minmax"),
    ],
)
def test_a_scheme_in_a_few_words(fields, label):
    assert scheme_label(scheme(**fields)) == label


PRESETS = {  # bits, group size, bits of activations
    **{"w8a8": (8, None, 8), "w6a6": (6, None, 6), "w4a4": (4, None, 4)},
    **{"w4a16g128": (4, 128, None), "w3a16": (3, None, None), "w2a16g64": (2, 64, None)},
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_papers_presets(name):
    found = scheme_named(name)
    assert (found.bits, found.group_size, found.act_bits, found.kv_bits) == (*PRESETS[name], None)
    assert (found.range, found.zero_point, found.symmetric) == (RangeRule.minmax, ZeroPoint.integer, False)
    assert (found.act_range, found.act_symmetric, found.scale_bits, found.outlier_ratio) == (
        ActRange.token,
        False,
        None,
        0,
    )


def test_every_preset_says_every_field_in_the_same_order():
    fields = {tuple(yaml.safe_load(path.read_text())) for path in CONF.glob("scheme/*.yaml")}
    assert len(fields) == 1


def record(**fields) -> dict:
    return {f"scheme.{name}": value for name, value in fields.items()}


def test_columns_say_the_bits_of_activations():
    old = record(bits=4, group_size=None, scale_bits=None)  # from before there were activations
    new = old | record(act_bits=None, kv_bits=math.nan)
    quantized, cached = old | record(act_bits=4, kv_bits=None), old | record(act_bits=8, kv_bits=4)
    grouped = record(bits=4, group_size=32, act_bits=4)
    columns = [ColumnKey.of(entry) for entry in (old, new, quantized, cached, grouped, record(act_bits=4))]
    assert [column.label for column in columns] == [
        "4",
        "4",
        "4 a4",
        "4 a8 kv4",
        "4 g32 a4",
        "own format a4",
    ]
    assert [column.activations for column in columns] == [
        "",
        "",
        "a4",
        "a8 kv4",
        "a4",
        "a4",
    ]
    assert ColumnKey(None).activations == ColumnKey(3, 16, 3).activations == ""
    assert ColumnKey(3, kv=4).activations == "kv4" and columns[0] == columns[1]
    ordered = sorted(columns[1:], key=lambda column: column.rank)
    assert [column.label for column in ordered] == [
        "4",
        "4 a8 kv4",
        "4 a4",
        "4 g32 a4",
        "own format a4",
    ]


def test_fields_of_activations_are_idle_where_none_is_quantized():
    off = record(act_bits=None, kv_bits=None, act_symmetric=False, act_range="token")
    rows = [record(bits=4), off, off | record(act_bits=4), off | record(kv_bits=8, act_symmetric=True)]
    shown = without_idle(pd.DataFrame(rows, dtype=object))
    assert shown["scheme.act_symmetric"].tolist()[2:] == [False, True] and shown["scheme.act_range"].tolist()[
        2:
    ] == ["token", "token"]
    assert (
        shown.loc[:1, ["scheme.act_symmetric", "scheme.act_range", "scheme.act_bits", "scheme.kv_bits"]]
        .isna()
        .all()
        .all()
    )
    assert shown["scheme.act_bits"][2] == 4 and shown["scheme.kv_bits"][3] == 8


def test_a_loaded_model_says_how_it_rounds_what_flows_through_it():
    from harness.commands.load import activations
    from tests.checkpoints.test_checkpoint import EQUIPMENT, equipped, quantized

    with torch.no_grad():
        assert activations(quantized("llama")[0]) == ""
        words = {kind: activations(equipped("llama", of)[0]) for kind, of in EQUIPMENT.items()}
    # the last block is not equipped
    assert words["tokens"] == "4 bits per token or float, keys and values 4 bits per token"
    assert words["static"] == "8 bits per tensor or float, keys and values 4 bits per tensor"
    assert words["cache"] == "float, keys and values 3 bits per token, symmetric"
