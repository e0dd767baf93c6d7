"""Finding a run by the beginning of its key."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from harness.foundation.errors import UserError
from harness.records import layout

Run = TypeVar("Run")


def meant(name: str, runs: Iterable[Run], names_of: Callable[[Run], Iterable[str]]) -> list[Run]:
    """The runs that a key or the beginning of one means: those of exactly this name, though others begin so
    too, else all that begin so. An empty name means none.
    """
    runs = list(runs)
    exact = [run for run in runs if name in names_of(run)]
    return exact or [run for run in runs if name and any(own.startswith(name) for own in names_of(run))]


def find(run: str | Path, results: Path) -> Path:
    """The directory that a run key, a unique beginning of one, or a path names.

    Raises:
        UserError: there is none, or more than one.
    """
    if not str(run):
        raise UserError("RUN is empty; name a run key, the beginning of one, or a directory")
    if Path(run).is_dir():
        return Path(run)
    looks_like_path = len(Path(run).parts) != 1 or str(run).startswith((".", "~"))
    known = [] if looks_like_path else layout.run_directories(results)
    found = meant(str(run), known, lambda path: [path.name])
    if not found:
        where = (
            "such directory"
            if looks_like_path
            else f"run whose key begins so below {results} ({len(known)} runs there)"
        )
        raise UserError(f"{run}: no {where}; `ptq-bench plan` shows the keys of a sweep")
    if len(found) > 1:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UserError(
            f"{run}: ambiguous, it could be {', '.join(map(str, found[:3]))}{more}; "
            "give more of the key, or the directory"
        )
    return found[0]
