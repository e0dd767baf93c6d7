"""Points are composed in a short way, which must lead where Hydra's leads."""

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException

from harness.config.run_config import plain_config
from harness.config.shorthand import parsed
from harness.foundation.errors import UserError
from harness.sweeps.points import Points, expand, left_to_points

TINY = ["model=tiny-llama", "data=synthetic", "eval=smoke"]


@pytest.fixture
def maker():
    GlobalHydra.instance().clear()
    with initialize_config_module("conf", version_base="1.3"):
        config = compose("config", return_hydra_config=True)
        yield Points(GlobalHydra.instance().config_loader(), config)


@pytest.mark.parametrize(
    "overrides",
    [
        "method=gptq scheme=w3",
        "method=gptq method.solver.damping=0.1 scheme=w3 scheme.group_size=64 scheme.range=minmax seed=3",
        "scheme.group_size=32 scheme=w2 scheme.bits=3",
        "method=affinequant method/solver=quantease method/transform=affinequant_small method.transform.epochs=1 scheme=w2a16g64",  # noqa: E501
        "method=awq method.transform=null save=true retry=true",
        "model=hub model.id=some/where eval.mirror=/data eval.corpora=[wiki,news] eval.tasks=[]",
        "+method.tuning=null data.mirror=here +tracker.tags=[a,b]",
        "experiment=transforms method=omniquant method.transform.epochs=2 hydra.launcher.slots=2",
        "~scheme.bits",
    ],
)
def test_the_short_way_leads_to_the_same_configuration(overrides, maker):
    overrides = tuple(overrides.split())
    whole = maker.loader.load_sweep_config(maker.config, list(overrides))
    for _ in range(2):  # composed, and taken from what is known
        assert _plain(maker._composed(overrides)) == _plain(whole)


def test_points_that_share_their_options_are_composed_once(maker, monkeypatch):
    loads, load = [], maker.loader.load_sweep_config
    monkeypatch.setattr(
        maker.loader, "load_sweep_config", lambda *arguments: loads.append(1) or load(*arguments)
    )
    points = maker.of(["method=rtn,gptq seed=0,1,2 scheme.bits=3,4"], [*TINY, "scheme=w4"])
    assert len(points) == 12 and len(loads) == 2
    assert {(point.config.seed, point.config.scheme.bits) for point in points} == {
        (seed, bits) for seed in range(3) for bits in (3, 4)
    }


def test_one_point_does_not_leak_into_the_next(maker):
    first, second = maker.of(["method=rtn scheme.bits=3", "method=rtn"], TINY)
    assert (first.config.scheme.bits, second.config.scheme.bits) == (3, 4)


def test_a_fixed_override_is_applied_to_every_swept_option_that_has_its_key(maker):
    points = maker.of([""], [*TINY, "method=omniquant,affinequant", "method.transform.epochs=3"])
    assert [point.config.method.transform.epochs for point in points] == [3, 3]
    points = maker.of([""], [*TINY, "tracker=none,wandb", "tracker.project=x"])
    assert [(point.config.tracker.name, point.config.tracker.project) for point in points] == [
        ("none", "x"),
        ("wandb", "x"),
    ]


def test_a_fixed_override_that_some_options_lack_is_named_with_them(maker):
    with pytest.raises(UserError) as error:
        maker.of(["method=rtn,gptq,omniquant", "method=spqr"], [*TINY, "method.solver.act_order=true"])
    assert str(error.value).startswith(
        "method.solver.act_order: no such key with method=omniquant, method=rtn, "
        "but with method=gptq, method=spqr; "
    )
    with pytest.raises(HydraException, match="act_ordr"):  # all lack it: then it is misspelt
        maker.of(["method=gptq,spqr"], [*TINY, "method.solver.act_ordr=true"])


def test_overrides_of_one_point_are_written_as_people_write_them(maker):
    """Swept models are options, paths and ids, each with what it stands for; in the grid of an experiment
    too.
    """
    grids = ["model=tiny-llama,tiny:opt eval.corpora=synthetic method=RTN", "model=./a=b eval.tasks=x,y"]
    points = maker.of(grids, ["data=synthetic", "eval=smoke"])
    assert [point.overrides[:2] for point in points] == [
        ("model=tiny-llama", "eval.corpora=[synthetic]"),
        ("model=hub", "model.id=tiny:opt"),
        ("model=hub", "model.id='./a=b'"),
    ]
    assert points[1].config.model.id == "tiny:opt" and "eval.tasks=[x,y]" in points[2].overrides


@pytest.mark.parametrize(
    "override",
    [
        "data.mirror=${eval.mirror}",
        "method.name='it\\'s 1e3'",
        "method.solver.damping=1e-3",
        "model.revision=null",
    ],
)
def test_values_are_left_to_points_as_they_were_written(override):
    (point,) = expand([parsed(left_to_points(override))])
    assert parsed(left_to_points(override)).is_sweep_override() and point == (override,)


def test_what_all_points_share_is_left_alone():
    for override in (
        "paths.results=x",
        "seed=3",
        "hydra.launcher.slots=2",
        "experiment=demo",
        "~scheme.bits",
    ):
        assert left_to_points(override) == override


def test_only_lists_can_be_swept(maker):
    with pytest.raises(UserError, match="only lists"):
        maker.of(["seed=interval(0,1)"], TINY)
    assert expand([]) == [()]


def _plain(config) -> dict | str:
    try:
        return plain_config(config)
    except Exception as error:  # the same refusal is the same too
        return str(error)
