"""trackio: a dashboard on this machine (`TRACKIO_DIR=results/trackio trackio show --project ptq-bench`),
without account or network.
"""

import os
from pathlib import Path
from typing import Any

from harness.config.groups import TrackerConfig
from harness.foundation.errors import UserError
from harness.tracking.story import COLUMNS, Ending, Identity


class TrackioRun:
    """One run of trackio. A run of the same name is replaced.

    trackio knows neither tags, job types nor summaries: the first two go to the configuration, the last is
    one more step.
    """

    def load(self) -> None:
        """Nothing yet: the import reads where the files go."""

    def open(self, identity: Identity, tracker: TrackerConfig, directory: Path) -> None:
        os.environ.setdefault("TRACKIO_DIR", os.fspath(directory.parent.parent / "trackio"))  # read at import
        self._trackio, self._last = _import_quietly(), 0
        name = f"{identity.name} · {identity.id}"
        for run in _runs(self._trackio, tracker.project):
            if run.name == name:
                run.delete()
        config = identity.config | {"id": identity.id, "job_type": identity.job_type, "tags": identity.tags}
        still = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        self._run = self._trackio.init(
            project=tracker.project, name=name, group=identity.group, config=config, **still
        )

    def log(self, values: dict[str, float], step: int) -> None:
        self._last = step
        self._run.log(values, step=step)

    def close(self, ending: Ending) -> None:
        layers = [
            {name: "" if value is None else value for name, value in zip(COLUMNS, row, strict=True)}
            for row in ending.layers
        ]
        table = {"layers": self._trackio.Table(data=layers)} if layers else {}
        self._run.log(_flat(ending.summary) | table, step=self._last + 1)
        artifact = self._trackio.Artifact(f"result-{self._run.config['id']}", type="result")
        for file in ending.files:
            artifact.add_file(os.fspath(file))
        self._run.log_artifact(artifact)
        self._run.finish()


def _import_quietly() -> Any:
    """trackio, without its prints and without asking the hub who we are."""
    try:
        import trackio
        import trackio.run
        import trackio.utils
    except ImportError as error:
        raise UserError(f"trackio cannot be imported ({error}): pip install 'ptq-bench[trackio]'") from error
    for module in (trackio, trackio.run, trackio.utils):
        # theirs only; redirecting stdout would silence the run's own too
        module.print = lambda *words, **options: None
    trackio.run.Run._get_username = lambda run: None
    return trackio


def _runs(trackio: Any, project: str) -> list:
    try:
        return list(trackio.Api().runs(project))
    except ValueError:
        return []  # no such project yet


def _flat(values: dict, prefix: str = "") -> dict:
    """Nested dictionaries as one, with / between the names; lists as text."""
    found = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}/")
        else:
            found[prefix + name] = "\n".join(map(str, value)) if isinstance(value, list) else value
    return found
