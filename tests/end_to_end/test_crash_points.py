"""A run killed at any step by which it changes files goes on and ends bit for bit as an undisturbed one.

In `make test` at a sample of the steps, in `make torture` at all of them; see tests/torture/crash_points.py.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "share", [0.05, pytest.param(1.0, marks=[pytest.mark.torture, pytest.mark.timeout(3600)])]
)
def test_killed_anywhere(share, tmp_path):
    command = [sys.executable, "-m", "tests.torture.crash_points", str(tmp_path), str(share), "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    print(told)
    assert told["wrong"] == []
    assert told["steps"] > 100 and told["cases"] >= 10 * share * 20
