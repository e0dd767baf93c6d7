"""Pairs by configuration: what composes, what it is called, and where it stands in a table."""

import pytest

from harness.bookkeeping import keys
from harness.config.compose import method_config, method_names
from harness.config.method_builder import build_method
from harness.foundation.errors import UserError
from harness.records.naming import METHODS, method_name, method_rank

CALLED = [
    ("awq", [], "awq"),
    ("awq", ["method/solver=gptq"], "awq+gptq"),
    ("gptq", ["method/transform=awq"], "awq+gptq"),
    ("awq", ["method/solver=quantease_gptq"], "awq+quantease_gptq"),
    ("quantease_gptq", ["method/transform=awq"], "awq+quantease_gptq"),
    ("rtn", ["method/transform=smoothquant"], "smoothquant"),
    ("awq", ["method.transform=null"], "rtn"),
    ("rtn", ["method/solver=vptq_further"], "vptq_further"),
    ("quantease_further", ["method/solver=quantease"], "quantease"),
    ("vptq_tuned", ["method/solver=gptvq", "method/transform=awq"], "awq+gptvq_tuned"),
    ("vptq_v6k4096", ["method/transform=awq"], "awq+vptq_v6k4096"),
    ("vptq_v6k4096", ["method/solver=gptq"], "gptq"),
    ("gptq", ["method.name=mine"], "mine"),
    ("awq", ["method.name=mine", "method/solver=gptq"], "mine"),
    ("awq", ["method.name=awq_fine", "method/solver=gptq"], "awq_fine+gptq"),
]


@pytest.mark.parametrize("name, overrides, called", CALLED, ids=str)
def test_a_pair_has_one_name_however_it_was_asked_for(name, overrides, called):
    config = method_config(name, *overrides)
    assert method_name(config) == called
    build_method(config)


def test_a_pair_is_one_run_however_it_was_asked_for():
    first, second = method_config("awq", "method/solver=gptq"), method_config("gptq", "method/transform=awq")
    assert keys._method(first) == keys._method(second) != keys._method(method_config("awq"))
    for name in ("gptq", "float", "vptq_tuned"):  # runs from before there were pairs keep their keys
        assert keys._method(method_config(name)) == method_config(name)
    assert keys._method(method_config("awq", "method.transform=null")) == method_config("rtn") | {
        "name": "awq"
    }


def test_a_pair_composes_to_its_halves():
    pair = method_config(
        "awq", "method/solver=quantease", "method.solver.sweeps=7", "method.transform.points=5"
    )
    assert pair["solver"] == method_config("quantease")["solver"] | {"sweeps": 7}
    assert pair["transform"] == method_config("awq")["transform"] | {"points": 5}
    assert "transform" not in method_config("gptq")  # the run keys of plain methods stay as they were


def test_every_method_is_called_by_its_own_name():
    for name in method_names():
        assert method_name(method_config(name)) == name


def test_the_float_model_has_no_halves():
    config = method_config("float")
    assert method_name(config) == "float" and build_method(config).solver is None
    with pytest.raises(UserError, match=r"method\.transform"):
        build_method(config | {"transform": method_config("awq")["transform"]})


def test_pairs_stand_behind_their_transform():
    names = [
        "affinequant+quantease",
        "mine",
        "awq+gptq",
        "rtn",
        "awq",
        "affinequant",
        "awq+rtn_x",
        "gptq",
        "smoothquant",
        "awq+quantease",
        "a",
    ]
    assert sorted(names, key=method_rank) == [
        *(
            "rtn",
            "gptq",
            "smoothquant",
            "awq",
            "awq+gptq",
            "awq+quantease",
            "awq+rtn_x",
            "affinequant",
            "affinequant+quantease",
            "a",
            "mine",
        ),
    ]


@pytest.mark.parametrize(
    "solver", ["methods.gptq.GPTQ", None, 3, [], {"_target_": None}, {"_target_": "x"}, {"damping": 1}]
)
def test_damaged_records_keep_their_name(solver):
    assert method_name({"name": "gptq", "solver": solver, "transform": solver}) == "gptq"
    assert set(METHODS) > {"float", "awq"}
