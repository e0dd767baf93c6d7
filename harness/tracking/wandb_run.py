"""Weights & Biases. Offline, everything stays below the results directory until `wandb sync` uploads it."""

import os
import shutil
from pathlib import Path
from typing import Any

from harness.config.groups import TrackerConfig
from harness.foundation.errors import UserError
from harness.tracking.story import COLUMNS, Ending, Identity


class WandbRun:
    """One run of W&B. A run of the same id is overwritten, here and on the server."""

    def load(self) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError(f"wandb cannot be imported ({error}): pip install wandb") from error
        self._wandb = wandb

    def open(self, identity: Identity, tracker: TrackerConfig, directory: Path) -> None:
        # artifacts wait there for sync
        os.environ.setdefault("WANDB_DATA_DIR", os.fspath(directory.parent.parent / "wandb"))
        for older in (directory / "wandb").glob(f"offline-run-*-{identity.id}"):
            # cut short or out of date: two of one id would be uploaded on top of each other
            shutil.rmtree(older, ignore_errors=True)
        self._run: Any = self._wandb.init(
            id=identity.id,
            name=identity.name,
            project=tracker.project,
            entity=tracker.entity,
            group=identity.group,
            job_type=identity.job_type,
            tags=identity.tags,
            config=identity.config,
            dir=directory,
            mode=tracker.mode,
            reinit="create_new",  # not "finish_previous": that one may hang
            settings=self._settings(),
        )
        for kind in ("layer", "block"):
            self._run.define_metric(f"{kind}/index", hidden=True)
            self._run.define_metric(f"{kind}/*", step_metric=f"{kind}/index")

    def _settings(self) -> Any:
        """Neither code, command line and packages nor what the terminal shows: the record holds what explains
        a number.
        """
        quiet = {"console": "off", "silent": True, "init_timeout": 60}
        return self._wandb.Settings(
            **quiet, disable_git=True, disable_code=True, x_disable_meta=True, x_save_requirements=False
        )

    def log(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def close(self, ending: Ending) -> None:
        if ending.layers:
            self._run.log(
                {
                    "layers": self._wandb.Table(
                        columns=list(COLUMNS), data=ending.layers, allow_mixed_types=True
                    )
                }
            )
        artifact = self._wandb.Artifact(f"result-{self._run.id}", type="result")
        for file in ending.files:
            artifact.add_file(os.fspath(file))
        self._run.log_artifact(artifact)
        self._run.summary.update(ending.summary)
        self._run.tags = (*self._run.tags, ending.status)
        self._run.finish(exit_code=ending.exit_code)
