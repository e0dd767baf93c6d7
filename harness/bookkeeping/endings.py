"""How a run ended: the status and the reason in its record, whatever happened."""

import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path

import torch

from harness.config.run_config import RunConfig
from harness.foundation.errors import UserError
from harness.foundation.redaction import redact
from harness.models.shape import inspect
from harness.quantization.divergence import Diverged, SolveError
from harness.records import layout

log = logging.getLogger(__name__)


def guarded(line: Callable[[], dict]) -> dict:
    """How the run ended, whatever happened in it."""
    try:
        return line()
    except Diverged as error:
        return _ended("diverged", str(error), error)
    except (Exception, SystemExit) as error:  # a library may call sys.exit
        if _out_of_memory(error):
            return _ended(
                "oom",
                f"out of memory ({_first_line(error)}); try a smaller data.batch_size or eval.batch_size",
                error,
            )
        reason = (
            str(error)
            if isinstance(error, UserError | SolveError)
            else f"{type(error).__name__}: {_first_line(error)}"
        )
        return _ended("failed", reason, error)


def _out_of_memory(error: BaseException | None) -> bool:
    """Of the GPU, of Python, or of torch on a CPU, which has no class for it; or caused by that."""
    if error is None:
        return False
    here = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
    return here or _out_of_memory(error.__cause__)


def _ended(status: str, reason: str, error: BaseException) -> dict:
    log.error("%s: %s", status, reason, exc_info=error)
    return {"status": status, "reason": redact(" ".join(reason.split()))}


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def stopped(config: RunConfig, where: str) -> dict:
    limit = f"stopped after {config.time_limit:g} minutes (time_limit) {where}"
    return {
        "status": "failed",
        "reason": f"{limit}; retry=true goes on from there, with a higher limit if it needs one",
    }


def died(code: int, where: str, directory: Path, for_memory: bool) -> dict:
    if code < 0:
        name = signal.Signals(-code).name
        likely = ", which the kernel sends when memory runs out" if code == -signal.SIGKILL else ""
        reason = f"killed by {name} (signal {-code}{likely}) {where}"
    else:
        reason = f"ended with exit code {code} {where}"
    knob = (
        "try a smaller data.batch_size or eval.batch_size" if for_memory else f"see {directory / layout.LOG}"
    )
    return {
        "status": "oom" if for_memory else "failed",
        "reason": f"{reason}; {knob}; retry=true goes on from there",
    }


def last_seen(directory: Path, attempt: int) -> str:
    """The last that the child told of its progress."""
    try:
        told = json.loads((directory / layout.PROGRESS).read_text())
        if told["attempt"] == attempt:
            return f"during {told['stage']} {told['done']}/{told['total']}"
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return "before it did anything"


def skip_reason(config: RunConfig) -> str | None:
    """Why the method, the scheme and the model make no sense together, or None; a point with a reason is
    recorded as skipped.
    """
    if config.method.solver is None:
        return None
    shape = inspect(config.model)
    if config.scheme.quantizes_activations and not shape.quantizable_activations:
        return (
            f"{shape.family}: where its blocks multiply queries, keys and values is not in the family table, "
            "so activations stay float"
        )
    if config.method.transform is not None and not shape.seams:
        return f"{shape.family}: what may be rewritten in its blocks is not in the family table (no seams)"
    return config.method.skip_reason(config.scheme, shape.seams)
