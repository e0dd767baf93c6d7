"""What the points of a sweep will take, one after another, each with what those before it leave for it."""

from dataclasses import dataclass

from harness.bookkeeping.keys import baseline_of, run_key, statistics_key
from harness.bookkeeping.point import Point
from harness.bookkeeping.token_ids import finished
from harness.config.groups import Propagate
from harness.config.run_config import RunConfig
from harness.foundation.cache import cache_dir
from harness.foundation.resources import device_name
from harness.models.shape import ModelShape, inspect
from harness.planning.memory import Memory, peak_memory
from harness.planning.operations import needs_of, operations
from harness.planning.rates import Rates, rates_of, worker_of
from harness.records.store import Store

START = 10.0  # seconds to load and to begin


@dataclass(frozen=True)
class Estimate:
    """Of one point."""

    seconds: float | None  # None: a part of its method does not count its work
    memory: Memory
    sources: frozenset[str]  # where the rates come from


class Estimator:
    """Estimates points in the order in which they will run. The first that needs statistics or a baseline
    pays for them.
    """

    def __init__(self):
        self._rates: dict[tuple[str, str], Rates] = {}
        self._left: set[str] = set()  # keys of statistics and of baselines that points before this one leave

    def estimate(self, point: Point, kept: float = 0.0) -> Estimate:
        """
        Args:
            kept: share of its blocks that a killed attempt has left done.
        """
        config, model = point.config, inspect(point.config.model)
        memory = peak_memory(config, model, device_name(config.device.value))
        if config.method.solver is None and self._baseline_is_left(config):
            return Estimate(0.0, memory, frozenset())
        counted = operations(config, model, known=self._statistics_are_left(config, model))
        left = {
            stage: count * (1 - kept) if count and stage != "evaluate" else count
            for stage, count in counted.items()
        }
        seconds, sources = self._seconds(config, left)
        if config.method.solver is not None and not self._baseline_is_left(config):
            baseline, more = self._seconds(baseline_of(config), {"evaluate": counted["evaluate"]})
            seconds, sources = _sum(seconds, baseline), sources | more
        return Estimate(seconds, memory, sources)

    def _seconds(
        self, config: RunConfig, counted: dict[str, float | None]
    ) -> tuple[float | None, frozenset[str]]:
        rates, total, sources = self._rates_of(config), START, set()
        for stage, count in counted.items():
            if count is None:
                return None, frozenset(sources)
            rate, source = rates.of(stage, worker_of(stage, config.method_config))
            total += count / rate
            sources.add(source)
        return total, frozenset(sources)

    def _rates_of(self, config: RunConfig) -> Rates:
        results, device = config.paths.results, device_name(config.device.value)
        if (results, device) not in self._rates:
            self._rates[results, device] = rates_of(results, config, device)
        return self._rates[results, device]

    def _statistics_are_left(self, config: RunConfig, model: ModelShape) -> bool:
        if config.method.solver is None or config.data.propagate is not Propagate.float:
            return False
        if model.blocks * model.hessian_bytes > config.paths.cache_gib * 2**30:
            return False
        key = statistics_key(config)
        there = (
            key in self._left or len(list((cache_dir() / "statistics" / key).glob("block-*"))) == model.blocks
        )
        if config.method.transform is None:
            self._left.add(key)
        return there and not needs_of(config).activations

    def _baseline_is_left(self, config: RunConfig) -> bool:
        float_model = baseline_of(config)
        key = run_key(float_model)
        there = key in self._left or finished(Store(config.paths.results), key, float_model)
        self._left.add(key)
        return there


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second
