"""Where Hydra looks for plugins. Hydra imports this in every program of the environment, so it imports
nothing heavy.
"""

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class LocalLauncher(Launcher):
    """`hydra/launcher=local`: see `harness.sweeps.local`."""

    def __init__(self, slots: int | None):
        self.slots = slots

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from harness.config.run_config import plain_config
        from harness.sweeps.local import launch

        loader = self.hydra_context.config_loader
        points = [
            plain_config(loader.load_sweep_config(self.config, list(overrides)))
            for overrides in job_overrides
        ]
        return [
            JobReturn(status=JobStatus.COMPLETED, _return_value=status)
            for status in launch(points, self.slots)
        ]
