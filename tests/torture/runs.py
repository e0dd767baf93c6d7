"""Small runs in forks of a process that has everything imported and has run one already: one costs a fraction
of a second.

Used by programs that start with `prepare()`; pytest itself does not fork, for who knows which threads other
tests have left it.
"""

import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import torch
from hydra import compose, initialize_config_module

from harness.bookkeeping.keys import run_key
from harness.bookkeeping.point import Point
from harness.checkpoints.checkpoint import is_intact
from harness.config.run_config import from_plain, plain_config
from harness.data import corpora
from harness.quantization.resume import Resume
from harness.run import run

SMALL = [
    "model=tiny-llama",
    "data=synthetic",
    "data.samples=1",
    "data.window=16",
    "data.true_sequential=false",
]
SMALL += ["eval=smoke", "eval.windows=1", "eval.window=16", "eval.corpora=[synthetic,news]"]
POINT = [*SMALL, "method=gptq", "scheme=w3", "save=true"]
VARYING = ("seconds", "peak_memory_bytes", "attempt", "reused", "digest")  # of a record
FRESH = "fresh"  # directory of results that hold the float model's record and nothing else
WHOLE = "whole"  # directory of results of an undisturbed run


def prepare(place: Path) -> None:
    """Leave `FRESH` and `WHOLE` below `place`, the working directory from now on, and have this process ready
    to fork.
    """
    os.environ["PTQ_BENCH_CACHE"] = str(place / "cache")
    os.chdir(place)
    torch.set_num_threads(1)
    texts = corpora.documents
    # two corpora, without any asset, soon tokenized
    corpora.documents = lambda name, split, mirror=None: texts("synthetic", split)[:1]
    keep = Resume.keep

    def keep_at_once(self, *arguments) -> None:  # the order of steps is then the same in every run
        keep(self, *arguments)
        self.wait()

    Resume.keep = keep_at_once
    assert run(Point.of(config("method=float", results=FRESH)))["status"] == "done"
    shutil.copytree(FRESH, WHOLE)
    assert run(Point.of(config(results=WHOLE)))["status"] == "done"


@cache
def config(*overrides: str, results: str):
    """The configuration of the small run."""
    with initialize_config_module("conf", version_base="1.3"):
        return from_plain(
            plain_config(compose("config", [*POINT, "isolate=false", f"paths.results={results}", *overrides]))
        )


def forked(deed: Callable[[], object], output: str = os.devnull) -> int:
    """Do something in a child, what it prints in a file; returns its exit code, negative for a signal."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 99
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            code = deed() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def differences(results: str) -> list[str]:
    """What of the small run below `results` is not as in an undisturbed one, bit for bit."""
    key = run_key(config(results=WHOLE))
    mine, whole = (Path(place, "runs", key) for place in (results, WHOLE))
    if not (mine / "record.json").exists():
        return ["no record"]
    found = [
        name
        for name in ("items.json", "config.yaml")
        if (mine / name).read_bytes() != (whole / name).read_bytes()
    ]
    first, second = (json.loads((place / "record.json").read_text()) for place in (mine, whole))
    for name in second.keys() - set(VARYING):
        if json.dumps(first.get(name)) != json.dumps(second[name]):
            found.append(f"{name}: {first.get(name)}")
    tables = [pd.read_parquet(place / "layers.parquet").drop(columns="seconds") for place in (mine, whole)]
    found += [] if tables[0].equals(tables[1]) else ["layers.parquet"]
    weights = [place / "checkpoint" / "quantized.safetensors" for place in (mine, whole)]
    if not is_intact(mine / "checkpoint") or weights[0].read_bytes() != weights[1].read_bytes():
        found.append("checkpoint")
    if first["attempt"] > 1:  # else there was nothing more to do, and nobody to tidy up
        found += [
            f"left behind: {path}"
            for path in mine.rglob("*")
            if path.name.startswith(".aside-") or path.name == "resume"
        ]
    return found
