"""The run that a comparison means: by its key, the beginning of one, or its directory."""

from pathlib import Path

from harness.foundation.did_you_mean import nearest_name
from harness.foundation.errors import UserError
from harness.foundation.text import visible
from harness.records import layout
from harness.records.lookup import meant
from harness.reporting.frames import entries_of, load_records
from harness.reporting.tables.comparison import Run

SHOWN = 4  # runs that a message about an ambiguous prefix names


def find_run(name: str, results: Path) -> Run:
    """The run that a key, the beginning of one or a directory names.

    Raises:
        UserError: there is none, or more than one.
    """
    if Path(name, layout.RECORD).is_file():
        directory = Path(name).resolve()
        if directory.parent.name != layout.RUNS:
            raise UserError(
                f"{name}: a run lies in DIR/runs/KEY; this one does not lie in a directory called runs"
            )
        return _choose(directory.name, directory.parent.parent, exact=True)
    return _choose(name, results, exact=False)


def _choose(name: str, results: Path, exact: bool) -> Run:
    records = load_records(results)
    runs = entries_of(records.frame)
    known = sorted({one["place"] for one in runs} | {one["run_key"] for one in runs})
    if exact:
        found = [one for one in runs if one["place"] == name]
    else:
        found = meant(name, runs, lambda one: (one["place"], one["run_key"]))
    if len(found) == 1:
        return Run(found[0], results / layout.RUNS / found[0]["place"])
    if found:
        places = [one["place"] for one in found]
        more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        raise UserError(
            f"{name!r} begins {len(found)} runs: {', '.join(map(visible, places[:SHOWN]))}{more}; "
            "give more of the key"
        )
    unusable = next(
        (reason for place, reason in records.left_out if place.split("/")[1].startswith(name) and name), None
    )
    if unusable:
        raise UserError(f"run {name!r} below {results / 'runs'} cannot be used: {unusable}")
    if not known:
        raise UserError(f"no records below {results / 'runs'}; point paths.results=DIR at some")
    hint = nearest_name(name, map(visible, known), cutoff=0.5, most=3)
    hint = hint or f"there are {len(runs)}, e.g. {visible(known[0])}"
    raise UserError(
        f"no run {name!r} below {results / 'runs'}: {hint} (or point paths.results=DIR elsewhere)"
    )
