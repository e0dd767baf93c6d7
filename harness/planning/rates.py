"""Operations per second by stage: from the records of earlier runs, or where there are none from how fast
this machine multiplies.
"""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from statistics import median
from typing import Any

import torch

from harness.config.groups import DataConfig, EvalConfig, ModelConfig
from harness.config.method_builder import build_method
from harness.config.run_config import RunConfig, typed
from harness.foundation.errors import UserError
from harness.models.shape import inspect
from harness.planning.operations import needs_of, operations
from harness.records import layout
from harness.records.record import finite
from harness.records.store import Store
from methods.contracts.method import Method
from methods.contracts.scheme import Scheme

STAGES = ("calibrate", "transform", "quantize", "evaluate")
LEAST_SECONDS = 0.5  # of a stage; what took less was mostly not work
RECENT = 8  # records of each method that are looked at, the latest
STANDS_OUT = 3  # times the median of the runs that found their statistics on disk
# operations per second of a run over those of a large matrix product; 50 runs on two cores had 0.4 to 0.9
EFFICIENCY = 0.6
RECORDS, RELATIVES, MEASURED = (
    "earlier records",
    "earlier records of other methods",
    "how fast this machine multiplies matrices",
)


@dataclass(frozen=True)
class Rates:
    """What earlier runs reached."""

    # (stage, who did the work) -> operations per second of each run
    seen: Mapping[tuple[str, str], list[float]]
    device: str  # cpu or cuda

    def of(self, stage: str, worker: str) -> tuple[float, str]:
        """Operations per second, and where the number comes from.

        Args:
            worker: the class of the solver or transform; empty for the other stages.
        """
        if own := self.seen.get((stage, worker)):
            return median(own), RECORDS
        relatives = [rate for (of, _), rates in self.seen.items() if of == stage for rate in rates]
        if relatives:
            return median(relatives), RELATIVES
        return EFFICIENCY * products_per_second(self.device), MEASURED


def worker_of(stage: str, method: Mapping[str, Any]) -> str:
    """Whose work a stage is, from the configuration of a method."""
    part = method.get({"quantize": "solver", "transform": "transform"}.get(stage, ""))
    return part["_target_"] if part else ""


def rates_of(results: str, config: RunConfig, device: str) -> Rates:
    """Rates from the finished records of a store.

    Args:
        config: of any run; gives what records leave out (paths and the like).
        device: cpu or cuda; records of the other kind say nothing.
    """
    latest = defaultdict(list)
    paths = sorted(
        Store(results).runs.glob(f"*/{layout.RECORD}"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for path in paths:
        try:
            record = Store(results).record(path.parent.name)
            same = latest[tuple(worker_of(stage, record["method"]) for stage in ("quantize", "transform"))]
            if (
                record["status"] == "done"
                and bool(finite(record["peak_memory_bytes"]["gpu"])) == (device == "cuda")
                and len(same) < RECENT
            ):
                same.append(record)
        except (UserError, KeyError, TypeError):
            continue  # not one of ours
    return Rates(_speeds([record for group in latest.values() for record in group], config), device)


def _speeds(records: list[dict], config: RunConfig) -> dict[tuple[str, str], list[float]]:
    seen, shared = defaultdict(list), defaultdict(list)
    for record in records:
        try:
            of = config_of(record, config)
            counted = operations(of, inspect(of.model), known=False)
        except (UserError, KeyError, TypeError, ValueError):
            continue  # of a model that is gone, or of a method that has other fields by now
        for stage, count in counted.items():
            seconds = finite(record["seconds"].get(stage)) or 0.0
            if seconds < LEAST_SECONDS or not count:
                continue
            if stage == "calibrate" and not needs_of(of).activations:
                shared[of.model, of.data, of.seed].append((seconds, count))
            else:
                seen[stage, worker_of(stage, record["method"])].append(count / seconds)
    seen["calibrate", ""] += [count / seconds for seconds, count in map(_first, shared.values()) if seconds]
    return {key: rates for key, rates in seen.items() if rates}


def _first(runs: list[tuple[float, float]]) -> tuple[float, float]:
    """Of runs that share statistics the (seconds, operations) of the one that computed them; zeros if none
    stands out.
    """
    slowest = max(runs)
    return slowest if slowest[0] > STANDS_OUT * median(seconds for seconds, _ in runs) else (0.0, 0.0)


def config_of(record: dict, like: RunConfig) -> RunConfig:
    """The configuration of a record, completed by that of another run.

    Raises:
        UserError: it is no longer a valid one.
    """

    def group(name: str, schema: type) -> Any:
        if record[name] is None:
            return getattr(like, name)
        known = {field.name for field in fields(schema)}
        given = {key: value for key, value in record[name].items() if key in known}
        return typed(schema, {"mirror": None} | given if "mirror" in known else given, name)

    quantizes = record["method"]["solver"] is not None
    method = build_method(record["method"]) if quantizes else Method(name="float", solver=None)
    groups = {"model": ModelConfig, "data": DataConfig, "scheme": Scheme, "eval": EvalConfig}
    return replace(
        like,
        **{name: group(name, schema) for name, schema in groups.items()},
        method=method,
        method_config=record["method"],
    )


@lru_cache(maxsize=2)
def products_per_second(device: str, seconds: float = 0.2, width: int = 1024) -> float:
    """Operations per second of a float32 matrix product."""
    matrix = torch.ones(width, width, device=device)
    count, start = 0, None
    while start is None or time.perf_counter() - start < seconds:
        (matrix @ matrix)[0, 0].item()  # waits for a GPU
        if start is None:  # the first one only warms up
            start = time.perf_counter()
        else:
            count += 1
    return 2.0 * width**3 * count / (time.perf_counter() - start)
