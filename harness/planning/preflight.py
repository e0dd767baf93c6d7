"""What can be known to go wrong before anything is loaded: rules that tie one group of the configuration to
another.

`check` is for every point of a sweep, `harness.planning.findings` looks once at the machine and at what all
points need of it.
"""

import os

from harness.config.groups import Device
from harness.config.run_config import RunConfig
from harness.data.corpora import CORPORA
from harness.evaluation import tasks
from harness.foundation.errors import UserError
from harness.foundation.resources import refuses_files
from harness.models.loading import check_files
from harness.models.shape import inspect


def check(config: RunConfig) -> None:
    """Check one point of a sweep against its model's shapes, without reading a weight.

    Raises:
        UserError: the first rule that is broken, naming the keys on both sides.
    """
    _names("data.name", [config.data.name], CORPORA)
    _names("eval.corpora", config.eval.corpora, CORPORA)
    for task in config.eval.tasks:
        tasks.check(task, config.eval.mirror)
    if not (config.eval.corpora or config.eval.tasks):
        raise UserError("eval.corpora=[] and eval.tasks=[]: nothing to evaluate; name a corpus or a task")
    for key, mirror in {"eval.mirror": config.eval.mirror, "data.mirror": config.data.mirror}.items():
        if mirror and not os.path.isdir(mirror):  # Path.is_dir raises for names that no file system takes
            raise UserError(f"{key}={mirror}: no such directory")
    if reason := refuses_files(config.paths.results):
        raise UserError(f"paths.results={config.paths.results}: cannot be written ({reason})")
    _device(config)
    check_files(config.model)
    shape = inspect(config.model)
    for key, window in {"data.window": config.data.window, "eval.window": config.eval.window}.items():
        if shape.context and window > shape.context:
            raise UserError(f"{key}={window}: {config.model.name} reads at most {shape.context} tokens")
    if config.method.solver is not None:
        _groups(config, shape.paths)


def _names(key: str, given: list[str], known) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"{key}={name}: unknown; choose among {', '.join(sorted(known))}")


def _groups(config: RunConfig, linears: dict[str, tuple[int, int]]) -> None:
    """Every layer that the group size does not fit, so that one look is enough; the points of a sweep tell
    one model and size each.
    """
    size = config.scheme.group_size
    odd = {path: width for path, (_, width) in linears.items() if size and width % size}
    if odd:
        widths = {width: [path for path in odd if odd[path] == width] for width in sorted(set(odd.values()))}
        layers = "; ".join(
            f"{width}: {len(paths)} layers such as {paths[0]}" for width, paths in widths.items()
        )
        raise UserError(
            f"scheme.group_size={size}: does not divide the input width of {len(odd)} of "
            f"{config.model.name}'s {len(linears)} linears ({layers}); choose a divisor or null"
        )


def _device(config: RunConfig) -> None:
    if config.device is Device.cuda:
        import torch

        if not torch.cuda.is_available():
            raise UserError("device=cuda: no GPU is visible; set device=cpu or device=auto")
