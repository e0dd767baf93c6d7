"""Processes that claim, for tests/records/test_attempts.py: they import no torch and so start at once.

python -m tests.torture.claimants claim DIRECTORY      prints "won NUMBER" and holds, or "lost", again for every line of stdin
"""  # noqa: E501

import sys
import time
from pathlib import Path

from harness.records.attempts import claim


def main(directory: Path) -> None:
    print("ready", flush=True)
    for order in sys.stdin:
        until = float(order)
        while time.time() < until:  # all at once, as nearly as can be
            pass
        held = claim(directory)
        print(f"won {held.number}" if held else "lost", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[2]))
