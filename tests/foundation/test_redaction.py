"""Credentials never reach a file, a log, a tracker or the terminal, whichever way they come in."""

import json
import logging
import sys
from urllib.parse import quote

import pytest

from harness.cli import main
from harness.foundation.errors import UserError
from harness.foundation.redaction import MARK, RedactingFormatter, redact, refuse_secrets, scrub_file, secrets

CANARIES = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_CanaryCanaryCanaryCanaryCanaryCana",
    "AWS_SECRET_ACCESS_KEY": "Canary/Canary+Canary/Canary+Canary/Canar",
}
PROXY = "proxy-pass-canary"
EVERY = [*CANARIES.values(), PROXY]
BASE = [
    "run",
    "model=tiny-llama",
    "data=synthetic",
    "data.samples=2",
    "eval=smoke",
    "eval.windows=1",
    "scheme=w4g32",
    "device=cpu",
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory, with credentials in the environment as on any machine of a user's."""
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HTTPS_PROXY", f"http://someone:{PROXY}@proxy.invalid:3128")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


def leaks(place, told):
    """Where a canary is found: every byte of every file, and what was printed."""
    files = {path.as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    everything = files | {"terminal": (told.out + told.err).encode()}
    return [
        (where, value)
        for where, content in everything.items()
        for value in EVERY
        if value.encode() in content
    ], len(files)


def ours(*more):
    """A run in this process, so that it can be made to fail."""
    return [*BASE, "method=rtn", "isolate=false", *more]


def test_from_the_environment_nothing_leaks(place, capfd):
    assert main(ours("tracker=wandb")) == 0
    assert main(["sync"]) == 0  # on a busy machine a run as short as these leaves its mirror behind
    found, files = leaks(place, capfd.readouterr())
    assert found == [] and files > 10
    assert list(place.rglob("*.wandb"))  # the offline run was scanned too


@pytest.mark.parametrize("value", EVERY)
@pytest.mark.parametrize(
    "key",
    [
        "tracker.project",
        "tracker.tags",
        "model.name",
        "eval.mirror",
        "+x",
        "hydra.sweep.dir",
        "paths.results",
    ],
)
def test_in_an_override_it_is_refused(place, capfd, key, value):
    assert main(ours("tracker=wandb", f"{key}={f'[{value}]' if 'tags' in key else value}")) == 2
    told = capfd.readouterr()
    assert told.err.startswith("ptq-bench: ") and told.err.count("\n") == 1 and key.lstrip("+") in told.err
    assert leaks(place, told) == ([], 0)


@pytest.mark.parametrize("name", CANARIES)
def test_an_interpolation_that_brings_it_in_is_refused(place, capfd, name):
    assert main(ours("tracker=wandb", f"tracker.group=${{oc.env:{name}}}")) == 2
    told = capfd.readouterr()
    assert "tracker.group: holds a credential" in told.err and leaks(place, told) == ([], 0)


@pytest.mark.parametrize("key", ["model.id", "eval.mirror", "data.mirror"])
def test_in_a_url_it_is_refused(place, capfd, monkeypatch, key):
    for name in (*CANARIES, "HTTPS_PROXY"):
        monkeypatch.delenv(name)  # known by its place alone
    for value in (quote(value, safe="") for value in EVERY):  # a slash would end the user's part of a URL
        assert main(ours("model=hub", "model.id=x", f"{key}='https://someone:{value}@host/path'")) == 2
        told = capfd.readouterr()
        assert f"{key}: holds a credential" in told.err and value not in told.err
        assert leaks(place, told) == ([], 0)


def test_in_an_exception_it_is_blotted_out(place, capfd, monkeypatch):
    def fail(*_):
        raise RuntimeError(f"401 for https://someone:{PROXY}@host with {' and '.join(CANARIES.values())}")

    monkeypatch.setattr("harness.run.load_model", fail)
    assert main(ours("tracker=wandb")) == 1
    found, files = leaks(place, capfd.readouterr())
    assert found == [] and files > 5
    records = [json.loads(path.read_text()) for path in place.rglob("record.json")]
    assert records and all(record["status"] == "failed" and MARK in record["reason"] for record in records)
    assert any(
        "Traceback" in path.read_text() and MARK in path.read_text() for path in place.rglob("log.txt")
    )


def test_what_counts_as_a_credential(place, monkeypatch):
    assert set(secrets()) >= set(EVERY) and "eu-central-1" not in secrets()
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    assert (
        redact("abc in eu-central-1, git@github.com:x/y, a@b, sha256:" + "0a" * 32)
        == "abc in eu-central-1, git@github.com:x/y, a@b, sha256:" + "0a" * 32
    )
    for value in (
        "hf_" + "x" * 34,
        "local-" + "0" * 40,
        "wandb_v1_" + "x" * 40,
        "AKIA" + "A" * 16,
        "ghp_" + "x" * 36,
        "sk-" + "x" * 40,
    ):
        assert redact(f"a {value}, b") == f"a {MARK}, b"
    assert redact("https://u:p@host/x") == f"https://{MARK}@host/x"
    assert (
        redact(f"key={CANARIES['AWS_SECRET_ACCESS_KEY'].replace('/', '%2F').replace('+', '%2B')}&")
        == f"key={MARK}&"
    )


def test_refusals_name_the_key_at_any_depth(place):
    refuse_secrets({"a": {"b": [1, None, {"c": "fine"}]}})
    with pytest.raises(UserError, match=r"^a\.b\.1\.c: holds a credential"):
        refuse_secrets({"a": {"b": [1, {"c": f"x{EVERY[0]}"}]}})


def test_logs_and_files_of_others_are_blotted(place):
    try:
        raise ValueError(EVERY[1])
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "told %s", (EVERY[0],), sys.exc_info())
    text = RedactingFormatter("%(message)s").format(record)
    assert "Traceback" in text and text.count(MARK) == 2 and not any(value in text for value in EVERY)
    path = place / "native.log"
    path.write_bytes(b"\xff binary " + EVERY[2].encode() + b" end")
    scrub_file(path)
    assert path.read_bytes() == b"\xff binary " + MARK.encode() + b" end"
    scrub_file(place / "nowhere")
