"""Where Hydra looks for plugins. Hydra imports this in every program of the environment, so it imports
nothing heavy.
"""

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class CheckedSweeper(Sweeper):
    """`hydra/sweeper=checked`: see `harness.sweeps.sweep`."""

    def __init__(self, grids: list[str] | None, plan: bool):
        self.grids, self.plan = list(grids or [""]), plan

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        from harness.planning.plan import show
        from harness.sweeps.progress_display import console
        from harness.sweeps.sweep import Sweep

        sweep = Sweep(self.hydra_context, self.task_function, self.config)
        points = sweep.points.of(self.grids, arguments)
        show(points, console) if self.plan else sweep.run(points)
