"""What people type stands for what they mean, and what stands for it stands for itself."""

import pytest

from harness.config.shorthand import meant, parsed, parts
from harness.foundation.errors import UserError

MEANT = {  # as typed -> the overrides
    # models
    "model=Qwen/Qwen3-0.6B": ["model=hub", "model.id=Qwen/Qwen3-0.6B"],
    "model=./my-checkpoint": ["model=hub", "model.id=./my-checkpoint"],
    "model=../other": ["model=hub", "model.id=../other"],
    "model=.": ["model=hub", "model.id=."],
    "model=/data/模型/7B": ["model=hub", "model.id='/data/模型/7B'"],
    "model=models/llama/7b": ["model=hub", "model.id=models/llama/7b"],
    "model=./run=3 (best)": ["model=hub", "model.id='./run=3 (best)'"],
    "model='./a,b'": ["model=hub", "model.id='./a,b'"],
    "model=https://huggingface.co/Qwen/Qwen3-0.6B/tree/main": ["model=hub", "model.id=Qwen/Qwen3-0.6B"],
    "model=tiny:llama": ["model=hub", "model.id=tiny:llama"],
    "model=tiny_llama": ["model=tiny-llama"],
    "model=smolm2": ["model=smolm2"],
    "model=a/b,c/d": ["model=a/b,c/d"],
    "model=smollm2-135m,./模型": ["model=smollm2-135m,'./模型'"],
    "model=choice(hub,tiny-llama)": ["model=choice(hub,tiny-llama)"],
    # lists
    "eval.tasks=piqa": ["eval.tasks=[piqa]"],
    "eval.tasks=piqa, hellaswag,": ["eval.tasks=[piqa,hellaswag]"],
    "eval.tasks=[piqa,hellaswag]": ["eval.tasks=[piqa,hellaswag]"],
    "eval.tasks=[piqa],[hellaswag]": ["eval.tasks=[piqa],[hellaswag]"],
    "eval.tasks=[piqa],hellaswag": ["eval.tasks=[piqa],[hellaswag]"],
    "eval.tasks=[中]": ["eval.tasks=['中']"],
    "eval.tasks=none": ["eval.tasks=[]"],
    "eval.corpora=wiki,news": ["eval.corpora=[wiki,news]"],
    "tracker.tags=null": ["tracker.tags=null"],
    # texts
    "paths.results=/data/run=3": ["paths.results='/data/run=3'"],
    "paths.results=a b": ["paths.results=a b"],
    "paths.results=结果": ["paths.results='结果'"],
    "paths.results=it's [2]": [r"paths.results='it\'s [2]'"],
    "paths.results=a,b": ["paths.results='a,b'"],
    "paths.results=1e3": ["paths.results='1e3'"],
    "paths.results=true": ["paths.results='true'"],
    "model.id=org/a,org/b": ["model.id=org/a,org/b"],
    "model.id=/a=1,/b": ["model.id='/a=1',/b"],
    "eval.mirror=None": ["eval.mirror=null"],
    "data.mirror=${eval.mirror}": ["data.mirror=${eval.mirror}"],
    "tracker.project=x=y": ["tracker.project='x=y'"],
    "method.name=my=method": ["method.name='my=method'"],
    "hydra.launcher.partition=a=b": ["hydra.launcher.partition='a=b'"],
    # options
    "method=GPTQ": ["method=gptq"],
    "method=gptq,": ["method=gptq"],
    "method=GPTQ, rtn": ["method=gptq,rtn"],
    "method=quantease-gptq": ["method=quantease_gptq"],
    "scheme=W4G128": ["scheme=w4g128"],
    "scheme=3": ["scheme='3'"],
    "method=[rtn,GPTQ]": ["method=rtn,gptq"],
    "+seed=3": ["++seed=3"],
    "+scheme.bits=3": ["++scheme.bits=3"],
    "+scheme.colour=red": ["+scheme.colour=red"],
    "+experiment=demo": ["experiment=demo"],
    "method/solver=GPTQ": ["method/solver=gptq"],
    "method.solver=gptq": ["method/solver=gptq"],
    "method/transform=null": ["++method.transform=null"],
    "method.transform=none": ["++method.transform=null"],
    # anything else
    " scheme.bits = 3 ": ["scheme.bits=3"],
    "scheme.bits=3,": ["scheme.bits=3"],
    "scheme.bits=3)": ["scheme.bits='3)'"],
    "scheme.bits=range(2,5)": ["scheme.bits=range(2,5)"],
    "scheme.group_size=-1": ["scheme.group_size=-1"],
    "method.solver.damping=1e-3": ["method.solver.damping=1e-3"],
    "seed=三": ["seed='三'"],
    "~scheme.bits": ["~scheme.bits"],
}


@pytest.mark.parametrize("typed", MEANT)
def test_what_is_typed_is_what_is_meant(typed):
    assert meant(typed) == MEANT[typed]


@pytest.mark.parametrize("typed", MEANT)
def test_what_is_meant_is_read_by_the_grammar_and_stands_for_itself(typed):
    for override in MEANT[typed]:
        assert parsed(override) and meant(override) == [override]


@pytest.mark.parametrize("typed", [typed for typed in MEANT if typed.startswith("paths.results=")])
def test_a_text_arrives_letter_by_letter(typed):
    (override,) = meant(typed)
    assert parsed(override).value() == typed.removeprefix("paths.results=")


def test_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/我")
    assert meant("model=~/x") == ["model=hub", "model.id='/home/我/x'"]
    assert meant("paths.results=~/a b") == ["paths.results='/home/我/a b'"]
    assert meant("model.id=~/x,'~/y'") == ["model.id='/home/我/x','/home/我/y'"]
    assert meant("paths.results=a~") == ["paths.results='a~'"]


def test_what_lies_here_is_one_name(tmp_path, monkeypatch):
    """A directory beats a guess at what a comma or a bare word means; an option beats the directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("a,b", "mine", "hub"):
        (tmp_path / name).mkdir()
    assert meant("model.id=a,b") == ["model.id='a,b'"]
    assert meant("model=mine") == ["model=hub", "model.id=mine"]
    assert meant("model=hub") == ["model=hub"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("model=", "model=: give it a value; choose among "),
        ("method=,", "method=: give it a value; choose among "),
        ("experiment=demo,solvers", "one experiment a command; run experiment=demo and then the next"),
        ("method=null", "method=null: give it a value; choose among "),
        ("model.id=", "model.id=: give it a value"),
        ("model.id=a${b", "begins a reference to another key"),
        ("paths.results=", "paths.results=: give it a value"),
        ("eval.mirror=", "eval.mirror=null for none"),
        ("eval.tasks=", r"eval.tasks=\[\] for none"),
        ("eval.tasks=[piqa", r"a bracket is not closed; write eval.tasks=\[NAME,NAME\]"),
    ],
)
def test_a_value_that_is_missing_is_told(typed, words):
    with pytest.raises(UserError, match=words):
        meant(typed)


def test_parts_are_split_outside_of_quotes_and_brackets():
    assert parts("a, 'b,c' ,[d,e],{f: g,h: i},") == ["a", "'b,c'", "[d,e]", "{f: g,h: i}"]
    assert parts(r"'it\'s,' ,b") == [r"'it\'s,'", "b"]
    assert parts("it's,b's") == ["it's", "b's"]
    assert parts("[a") is None and parts("[a,b", brackets=False) == ["[a", "b"] and parts(" , ") == []
