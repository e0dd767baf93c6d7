"""The words of a command line: put together, told apart, and what is to be typed instead of the rest."""

import pytest

from harness.cli import main
from harness.config.arguments import overrides_of, understood
from harness.foundation.errors import UserError


@pytest.mark.parametrize(
    ("words", "flags", "overrides"),
    [
        ("method=gptq --help", ["--help"], ["method=gptq"]),
        ("help method=gptq", ["--help"], ["method=gptq"]),
        ("--cfg job method=gptq", ["--cfg", "job"], ["method=gptq"]),
        ("--cfg=job method=gptq", ["--cfg=job"], ["method=gptq"]),
        ("--info defaults method=gptq", ["--info", "defaults"], ["method=gptq"]),
        ("--info method=gptq -m", ["--info", "-m"], ["method=gptq"]),
        ("scheme.bits = 3 seed= 1 data.samples =4", [], ["scheme.bits=3", "seed=1", "data.samples=4"]),
        ("seed = -1", [], ["seed=-1"]),
        ("method=gptq, rtn scheme=w3", [], ["method=gptq,rtn", "scheme=w3"]),
        ("method=gptq , rtn", [], ["method=gptq,rtn"]),
        ("eval.tasks=[piqa, hellaswag] seed=1", [], ["eval.tasks=[piqa,hellaswag]", "seed=1"]),
        ("results=here", [], ["paths.results=here"]),
        ("--results here seed=1", [], ["paths.results=here", "seed=1"]),
        ("--results=a=b", [], ["paths.results='a=b'"]),
        ("~scheme.bits", [], ["~scheme.bits"]),
    ],
)
def test_words_are_understood(words, flags, overrides):
    assert understood(words.split()) == (flags, overrides)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--bits 3", "--bits=3: overrides are written without dashes: scheme.bits=3"),
        ("--bits=3", "--bits=3: overrides are written without dashes: scheme.bits=3"),
        ("--scheme.bits 3", "--scheme.bits=3: overrides are written without dashes: scheme.bits=3"),
        ("--method gptq", "overrides are written without dashes: method=gptq"),
        ("--batch_size 4", "without dashes: data.batch_size=4 or eval.batch_size=4"),
        ("--hepl", "unknown option '--hepl': did you mean --help?"),
        ("--slots 3", "unknown option '--slots': an override is key=value"),
        ("gptq", "write method=gptq or method/solver=gptq"),
        ("GPTQ", "write method=gptq or method/solver=gptq"),
        ("Qwen/Qwen3-0.6B", "write model=Qwen/Qwen3-0.6B"),
        ("method=gptq ./my-checkpoint", "write model=./my-checkpoint"),
        ("paths.results=/my results/x", "quote both: 'paths.results=/my results/x'"),
        ("nonsense", "nonsense: an override is key=value, such as method=gptq or scheme.bits=3"),
        ("模型=x", "模型=x: an override is key=value"),
        ("=3", "=3: an override is key=value"),
    ],
)
def test_what_is_no_override_gets_the_words_to_type(words, told):
    with pytest.raises(UserError) as error:
        understood(words.split())
    assert told in str(error.value) and "\n" not in str(error.value)


def test_help_is_shown_beside_anything(capsys):
    for words in (["run", "--help", "method=nope"], ["plan", "gptq", "-h"], ["help", "run"]):
        assert main(words) == 0
        assert "Groups to choose from" in capsys.readouterr().out


def test_the_first_point_is_shown(capsys):
    assert main(["run", "--cfg", "job", "model=tiny-llama,./x", "method=gptq,rtn", "scheme.bits=3,4"]) == 0
    shown = capsys.readouterr().out
    assert "id: tiny:llama" in shown and "name: gptq" in shown and "bits: 3" in shown


def test_overrides_without_flags():
    assert overrides_of(["eval.tasks=a,b", "model=a/b"]) == ["eval.tasks=[a,b]", "model=hub", "model.id=a/b"]
