"""Wrong input gets one line that names the thing, before anything is loaded, and nothing is written."""

import pytest
from hydra import compose, initialize_config_module

from harness.cli import main
from harness.config.compose import CONF, option
from harness.config.run_config import to_run_config
from harness.data.corpora import CORPORA
from harness.foundation.errors import UserError

TINY = ["model=tiny-llama", "data=synthetic", "eval=smoke"]

WRONG = {  # overrides -> words that the line must hold
    "scheme.bitz=3": ["scheme.bitz", "scheme.bits"],
    "shceme.bits=3": ["shceme.bits", "scheme.bits"],
    "methd=gptq": ["methd", "method"],
    "method=gtpq": ["gtpq", "gptq"],
    "scheme=w5x": ["w5x", "w4"],
    "model=smolm2": ["smolm2", "smollm2-135m"],
    "eval=fast": ["fast", "quick"],
    "tracker=mlflow": ["mlflow", "wandb"],
    "experiment=nope": ["nope"],
    "scheme.bits=9": ["scheme.bits=9", "8"],
    "scheme.bits=1": ["scheme.bits=1", "2"],
    "scheme.bits=-7": ["scheme.bits=-7"],
    "scheme.bits=four": ["scheme.bits", "four"],
    "scheme.bits=2.5": ["scheme.bits", "2.5"],
    "scheme.group_size=0": ["scheme.group_size=0"],
    "scheme.group_size=48": ["scheme.group_size=48", "64"],
    "scheme.range=best": ["scheme.range", "minmax", "search"],
    "scheme.zero_point=none": ["scheme.zero_point", "integer", "float"],
    "scheme.symmetric=maybe": ["scheme.symmetric"],
    "scheme.symmetric=true scheme.zero_point=float": ["scheme.zero_point", "scheme.symmetric"],
    "method=gptq method.solver.damping=-1": ["method.solver.damping", "-1"],
    "method=gptq method.solver.damping=much": ["method.solver.damping", "much"],
    "method=gptq method.solver.block_size=0": ["method.solver.block_size", "0"],
    "method=quantease method.solver.sweeps=-3": ["method.solver.sweeps", "-3"],
    "method=quantease method.solver.sweps=3": ["method.solver.sweps", "method.solver.sweeps"],
    "method=gptq method.solver._target_=os.system": ["_target_", "os.system", "methods"],
    "method=gptq method.solver._target_=methods.gptq.torch": ["_target_", "methods.gptq.torch"],
    "data.samples=0": ["data.samples=0"],
    "data.window=1": ["data.window=1"],
    "data.window=100000": ["data.window=100000", "tokens"],
    "data.propagate=sideways": ["data.propagate", "quantized", "float"],
    "data.name=pile": ["data.name=pile", "synthetic"],
    "eval.window=100000": ["eval.window=100000", "tokens"],
    "eval.windows=0": ["eval.windows=0"],
    "eval.corpora=[moby]": ["eval.corpora", "moby"],
    "eval.tasks=[triviaqq]": ["eval.tasks", "triviaqq"],
    "eval.corpora=[] eval.tasks=[]": ["eval.corpora", "eval.tasks"],
    "eval.mirror=/no/such/place": ["eval.mirror", "/no/such/place"],
    "eval.batch_size=0": ["eval.batch_size=0"],
    "model=hub": ["model.id"],
    "model=hub model.id=/no/such/dir": ["/no/such/dir"],
    "model.id=tiny:gpt9": ["gpt9", "llama"],
    "model.id=asset:nothing": ["nothing", "smollm2-135m"],
    "model.dtype=int3": ["model.dtype", "float32"],
    "seed=-1": ["seed=-1"],
    "seed=lucky": ["seed", "lucky"],
    "device=tpu": ["device", "cuda"],
    "paths.results=/proc/nowhere": ["paths.results", "/proc"],
    "tracker=wandb tracker.mode=sometimes": ["tracker.mode", "offline"],
    "scheme.bits=interval(2,4)": ["scheme.bits", "1,2,3"],
    "scheme.bits=": ["scheme.bits"],
    "+scheme.colour=red": ["scheme.colour"],
    "bits=3": ["bits: no such key", "did you mean scheme.bits=3?"],
    "batch_size=3": ["did you mean data.batch_size=3 or eval.batch_size=3?"],
    "model=gpt2": ["model=gpt2: no such option", "model=./gpt2", "model=hub model.id=gpt2"],
    "model=./nowhere": ["model.id='./nowhere'", "directory"],
    "model=tiny-llama,./不在": ["./不在", "directory"],
    "eval=piqa": ["eval=piqa: no such option", "eval.tasks=piqa", "eval.corpora=piqa"],
    "eval.tasks=piqa,triviaqq": ["eval.tasks", "triviaqq"],
    "scheme=3": ["scheme=3: no such option", "w3", "scheme.bits=3"],
    "scheme.bits=3)": ["scheme.bits", "3)"],
    "scheme.bits='3": ["scheme.bits", "3"],
    "seed=三": ["seed", "三"],
    "scheme.group_size=-1": ["scheme.group_size=-1", "null"],
    "data.samples=1e3.5": ["data.samples", "1e3.5"],
    "method=rtn,gptq method.solver.damping=0.1": ["method.solver.damping", "method=rtn", "method=gptq"],
    "--bits 3": ["scheme.bits=3"],
    "scheme..bits=3": ["scheme..bits=3", "key=value"],
    "paths.results=${HOME}/x": ["paths.results: ", "'HOME'", "${oc.env:NAME}"],
    "scheme={bits:3,depth:4}": ["scheme"],
    "method.solver={block_size:3}": ["method.solver", "one by one"],
}


@pytest.mark.parametrize("overrides", WRONG, ids=str)
def test_one_line_and_nothing_written(overrides, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = main(["run", *TINY, *overrides.split()])
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert code == 2, captured.err
    assert len(lines) == 1 and "Traceback" not in captured.err, captured.err
    for word in WRONG[overrides]:
        assert word in lines[0], lines[0]
    assert list(tmp_path.rglob("*")) == []


def test_every_bad_point_of_a_sweep_is_named_and_no_good_one_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = main(["run", *TINY, "scheme.group_size=32,48,80", "method=rtn,gptq"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and len(lines) == 2
    assert "48" in lines[0] and "80" in lines[1]
    assert list(tmp_path.rglob("*")) == []


def test_unknown_command_and_help(capsys):
    assert main(["rnu"]) == 2
    assert "did you mean run?" in capsys.readouterr().err
    assert main(["method=gptq", "paths.results=a b"]) == 2
    assert "did you mean ptq-bench run method=gptq 'paths.results=a b'" in capsys.readouterr().err
    assert main(["help"]) == 0
    assert "report" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "report" in capsys.readouterr().out


# --- windows of each corpus


def windows(*overrides):
    corpora = "eval.corpora=[wikitext2,ptb,c4]"
    with initialize_config_module("conf", version_base="1.3"):
        return to_run_config(compose("config", ["model=tiny-llama", corpora, *overrides])).eval


def test_the_papers_protocol_is_one_configuration():
    paper = windows("eval=paper")
    assert paper.corpora == ["wikitext2", "ptb", "c4"] and paper.window == 2048
    assert [paper.windows_of(corpus) for corpus in paper.corpora] == [None, None, 256]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["eval.windows=8"], 8),
        (["eval.windows=null"], None),
        (["eval.windows.c4=256"], {"wikitext2": 16, "ptb": 16, "c4": 256}),
        (["eval.windows={c4: 5, ptb: null}"], {"wikitext2": 16, "ptb": None, "c4": 5}),
        (["eval.windows.c4=9", "eval.corpora=[c4]"], 9),
        (["eval=paper", "eval.corpora=[wikitext2]"], None),
    ],
)
def test_windows_for_all_corpora_or_for_each(overrides, expected):
    assert windows(*overrides).windows == expected


@pytest.mark.parametrize("given", ["0", "-1", "2.5", "true", "many", "{c4: 0}", "{c4: x}", "1e12"])
def test_windows_that_are_none_are_refused(given):
    with pytest.raises(UserError, match=r"eval\.windows"):
        windows(f"eval.windows={given}")


@pytest.mark.parametrize("place", ["eval", "experiment"])
def test_windows_are_said_for_every_corpus(place):
    """Or `eval.windows.c4=256` could not be said on the command line."""
    found = [option(place, path.stem) for path in CONF.glob(f"{place}/*.yaml")]
    said = [one.get("windows", one.get("eval", {}).get("windows", CORPORA)) for one in found]
    assert said and all(set(windows) == set(CORPORA) for windows in said)
