"""The options of all commands but Hydra's: one grammar, key=value as another spelling, errors in one line."""

import pytest

from harness.cli import COMMANDS, main
from harness.commands.options import Options
from harness.foundation.errors import UserError


@pytest.fixture
def options() -> Options:
    options = Options("look", "Looks.")
    options.add_results("where to look")
    options.add_argument("--name")
    options.add_argument("--often", type=int, default=1)
    options.add_argument("words", nargs="*")
    return options


@pytest.mark.parametrize("spelling", ["--results", "--results=", "results=", "paths.results="])
def test_every_spelling_of_an_option_is_the_same(options, spelling):
    given = [spelling + "a=b"] if spelling.endswith("=") else [spelling, "a=b"]
    assert options.parse_args([*given, "name=me", "often=3"]) == options.parse_args(
        ["--results", "a=b", "--name", "me", "--often", "3"]
    )


def test_the_home_directory_is_found_behind_an_equals_sign(options, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert options.parse_args(["--results=~/x"]).results == "/home/me/x"


def test_options_stand_between_words_and_other_assignments_are_words(options):
    chosen = options.parse_args(["method=rtn", "paths.results=x", "often=2", "data.name=wiki"])
    assert (chosen.results, chosen.often, chosen.words) == ("x", 2, ["method=rtn", "data.name=wiki"])


def test_a_directory_is_no_option(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "name=me").mkdir()
    chosen = options.parse_args(["name=me", "name=you"])
    assert (chosen.name, chosen.words) == ("you", ["name=me"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reslts", "x"], "unknown option '--reslts': did you mean --results?"),
        (["--zzz"], "unknown option '--zzz': known: --results, --name, --often"),
        (["--name", ""], "--name: give it a value"),
        (["paths.results="], "--results: give it a value"),
        (["--name"], "argument --name: expected one argument"),
        (["often=x"], "argument --often: invalid int value: 'x'"),
    ],
)
def test_what_is_wrong_is_one_line(options, arguments, message):
    with pytest.raises(UserError) as error:
        options.parse_args(arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"run", "plan"}))
def test_every_command_has_help_and_knows_what_it_does_not_know(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"ptq-bench {command}" in capsys.readouterr().out
    words = {"load": ["a"], "compare": ["a", "b"], "evaluate": ["a", "eval=b"]}.get(command, [])
    assert main([command, "--no-such-option", *words]) == 2
    error = capsys.readouterr().err
    assert "--no-such-option" in error and error.count("\n") == 1
    if command not in ("assets", "bench"):
        assert main([command, "--reslts=x", *words]) == 2
        assert "did you mean --results?" in capsys.readouterr().err
