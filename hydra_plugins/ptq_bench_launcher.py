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

        loader = self.hydra_context.config_loader
        configs = [loader.load_sweep_config(self.config, list(overrides)) for overrides in job_overrides]
        statuses = self.launch_points([plain_config(config) for config in configs])
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=status) for status in statuses]

    def launch_points(self, points: Sequence[dict]) -> list[str]:
        """Run points that are composed already (`plain_config` of each); their statuses, in order."""
        from harness.sweeps.local import launch

        return launch(points, self.slots)
