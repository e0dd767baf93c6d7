"""One comparison of two settings: the numbers of both sides, and what a test works on. Claims say which, see
`claims_matching`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.records.measurements import Items, Layers
from harness.records.record import finite
from harness.reporting.claims.reading import ACCURACY, LAYERS, PERPLEXITY, Rule
from harness.reporting.claims.runs import Runs

Seeds = Mapping[Any, tuple[int, int]]  # seed -> the runs of both sides


@dataclass(frozen=True)
class Measured:
    """One comparison. `a` and `b` are means over the seeds that both sides have (of perplexities the
    geometric one).

    `beyond` is what a test of the hypothesis "the effect is the bound" works on, item by item: the difference
    of losses minus the logarithm of the bound, or the difference of outcomes minus the bound. None for what
    is exact, and where no items were kept.
    """

    subject: str
    a: float
    b: float | None
    effect: float
    exact: bool = False
    beyond: np.ndarray | None = field(default=None, compare=False, repr=False)


def measure(
    runs: Runs, items: Items, layers: Layers | None, rule: Rule, ours: list[int], others: list[int]
) -> list[tuple[Measured, Seeds]]:
    """What one setting of each side gives, with the runs behind it."""
    if rule.kind == PERPLEXITY:
        return list(_perplexities(runs, items, rule, ours, others))
    if rule.kind == ACCURACY:
        return list(_accuracies(runs, items, rule, ours, others))
    seeds = _by_seed(runs, ours, others)
    if rule.kind == LAYERS:
        return list(_layer_errors(runs, layers, rule, seeds))
    return list(_numbers(runs, rule, seeds))


def _by_seed(
    runs: Runs, ours: list[int], others: list[int], fits: Callable[[int], bool] = lambda run: True
) -> Seeds:
    """The first run of either side for every seed that both have."""
    first: tuple[dict, dict] = ({}, {})
    for place, side in enumerate((ours, others)):
        for run in filter(fits, side):
            first[place].setdefault(runs.get("seed", run), run)
    return {
        seed: (first[0][seed], first[1][seed]) for seed in sorted(first[0].keys() & first[1].keys(), key=str)
    }


def protocols_of(runs: Runs, rule: Rule, run: int) -> dict[str, str]:
    """The metrics of a run that the rule is about, with their protocols."""
    wanted, _, prefix = rule.measure.partition("/")
    split = (
        (name, *name.partition("/")[::2], metric["protocol"])
        for name, metric in (runs.get("metrics", run) or {}).items()
    )
    return {
        name: protocol
        for name, kind, subject, protocol in split
        if kind == wanted and subject.startswith(prefix)
    }


def _perplexities(
    runs: Runs, items: Items, rule: Rule, ours: list[int], others: list[int]
) -> Iterator[tuple[Measured, Seeds]]:
    """Each corpus and protocol by itself: the ratio of perplexities is the exponential of the mean difference
    of losses.
    """
    for name, protocol in sorted({entry for run in ours for entry in protocols_of(runs, rule, run).items()}):
        seeds = _by_seed(
            runs,
            ours,
            others,
            lambda run, name=name, protocol=protocol: protocols_of(runs, rule, run).get(name) == protocol,
        )
        logs = [
            [_log(runs.get("metrics", pair[place])[name]["value"]) for pair in seeds.values()]
            for place in (0, 1)
        ]
        if not seeds or None in logs[0] + logs[1]:
            continue
        a, b = (float(np.mean(side)) for side in logs)
        kept = [_mean_items(items, runs, [pair[place] for pair in seeds.values()], name) for place in (0, 1)]
        beyond = _difference(*kept, math.log(rule.bound))
        yield (
            Measured(name.partition("/")[2], math.exp(a), math.exp(b), math.exp(a - b), beyond=beyond),
            seeds,
        )


def _accuracies(
    runs: Runs, items: Items, rule: Rule, ours: list[int], others: list[int]
) -> Iterator[tuple[Measured, Seeds]]:
    """The plain mean over the tasks that both sides have, as the papers average: items of small tasks weigh
    more.
    """
    for tasks in _common_tasks(runs, rule, ours, others):
        seeds = _by_seed(
            runs, ours, others, lambda run, tasks=tasks: tasks <= set(protocols_of(runs, rule, run).items())
        )
        if not seeds:
            continue
        names = sorted(name for name, _ in tasks)
        a, b = (
            float(
                np.mean(
                    [
                        finite(runs.get("metrics", pair[place])[name]["value"]) or 0.0
                        for pair in seeds.values()
                        for name in names
                    ]
                )
            )
            for place in (0, 1)
        )
        subject = names[0].partition("/")[2] if len(names) == 1 else f"mean of {len(names)} tasks"
        yield (
            Measured(
                subject, a, b, a - b, beyond=_difference(*_stacked(items, runs, seeds, names), rule.bound)
            ),
            seeds,
        )


def _common_tasks(runs: Runs, rule: Rule, ours: list[int], others: list[int]) -> list[frozenset]:
    """The largest sets of tasks, with their protocols, that a run of either side shares with one of the
    other.
    """
    sets = [{frozenset(protocols_of(runs, rule, run).items()) for run in side} for side in (ours, others)]
    common = {one & other for one in sets[0] for other in sets[1] if one & other}
    return sorted((one for one in common if not any(one < other for other in common)), key=sorted)


def _stacked(
    items: Items, runs: Runs, seeds: Seeds, names: Sequence[str]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The items of all tasks of both sides, scaled such that their mean is the mean over the tasks."""
    kept = [
        [_mean_items(items, runs, [pair[place] for pair in seeds.values()], name) for name in names]
        for place in (0, 1)
    ]
    if any(values is None or not len(values) for side in kept for values in side):
        return None, None
    total = sum(map(len, kept[0]))
    ours, others = (
        np.concatenate([values * (total / (len(names) * len(values))) for values in side]) for side in kept
    )
    return ours, others


def _difference(ours: np.ndarray | None, others: np.ndarray | None, bound: float) -> np.ndarray | None:
    if ours is None or others is None or ours.shape != others.shape or not np.isfinite(ours - others).all():
        return None
    return ours - others - bound


def _mean_items(items: Items, runs: Runs, side: Sequence[int], metric: str) -> np.ndarray | None:
    """Item by item the mean over the seeds, or None where one of them kept none."""
    found = [items.of(runs.get("place", run), metric) for run in side]
    if any(values is None or values.shape != found[0].shape for values in found):
        return None
    return np.mean(found, axis=0)


def _layer_errors(
    runs: Runs, layers: Layers | None, rule: Rule, seeds: Seeds
) -> Iterator[tuple[Measured, Seeds]]:
    """The ratio of the errors of each linear, and of these the median or the least."""
    if layers is None or not seeds:
        return
    kept = [[layers.of(runs.get("place", pair[place])) for pair in seeds.values()] for place in (0, 1)]
    names = sorted(set.intersection(*(set(errors) for side in kept for errors in side)))
    a, b = (np.array([[errors[name] for name in names] for errors in side]).mean(axis=0) for side in kept)
    comparable = np.isfinite(a) & np.isfinite(b) & (b > 0)
    if not comparable.any():
        return
    ratios = a[comparable] / b[comparable]
    effect = float(np.median(ratios) if rule.layers == "median" else ratios.min())
    subject, means = (
        f"{rule.layers} of {len(ratios)} linears",
        [float(side[comparable].mean()) for side in (a, b)],
    )
    yield Measured(subject, *means, effect, exact=True), seeds


def _numbers(runs: Runs, rule: Rule, seeds: Seeds) -> Iterator[tuple[Measured, Seeds]]:
    """A column of the records: what a run took or stores, measured once."""
    values = [[finite(runs.get(rule.measure, pair[place])) for pair in seeds.values()] for place in (0, 1)]
    if not seeds or None in values[0] + values[1]:
        return
    a, b = (float(np.mean(side)) for side in values)
    if rule.effect == "value":
        yield Measured(rule.measure, a, None, a, exact=True), seeds
    elif rule.effect == "difference" or b:
        yield Measured(rule.measure, a, b, a / b if rule.effect == "ratio" else a - b, exact=True), seeds


def _log(value: Any) -> float | None:
    found = finite(value)
    return math.log(found) if found and found > 0 else None
