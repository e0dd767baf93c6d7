"""Finding a run by the beginning of its key."""

from pathlib import Path

from harness.foundation.errors import UserError


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
    known = (
        []
        if looks_like_path
        else [path for path in results.glob("**/runs/*") if path.is_dir() and not path.name.startswith(".")]
    )
    found = sorted(path for path in known if path.name.startswith(str(run)))
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
