"""Which runs a claim compares, and what comes of each comparison. Nothing here decides anything, see
`harness.reporting.claims.judging`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.records.measurements import Items, Layers
from harness.records.record import finite
from harness.reporting.claims.measuring import Measured, Seeds, measure, protocols_of
from harness.reporting.claims.reading import Claim, Rule
from harness.reporting.claims.runs import Runs, same_method, shared_columns, sides, usable
from harness.reporting.keys import HEAD
from harness.reporting.labels import short_names, value_text

OTHER_MODEL = "is about another model"


@dataclass(frozen=True)
class Comparison:
    measured: Measured
    setting: str  # bits and groups, and what else differs between the comparisons of a claim
    run_keys: tuple[str, ...]
    fallbacks: bool  # a run of it did not go as configured


@dataclass(frozen=True)
class Found:
    """The comparisons of one claim on one model, or why there are none."""

    comparisons: tuple[Comparison, ...]
    why: str = ""


def compare(runs: Runs, items: Items, layers: Layers | None, claim: Claim) -> dict[str, Found]:
    """What a claim compares on each model.

    Runs are grouped first, by model and by everything that the two sides must share; then each setting of one
    side meets each setting of the other inside its group. Seeds are no settings: those that both sides have
    are averaged.
    """
    rule = claim.rule
    columns, both = shared_columns(runs, rule), sides(runs, rule)
    groups: dict[tuple, tuple[dict[tuple, list[int]], dict[tuple, list[int]]]] = {}
    variants = [_variant_columns(runs, rule, columns), _variant_columns(runs, rule, columns, against=True)]
    for number, side in enumerate(both):
        for run in side:
            if usable(runs, rule, run):
                group = groups.setdefault((runs.model[run], *runs.values(columns, run)), ({}, {}))
                group[number].setdefault(runs.values(variants[number], run), []).append(run)
    raw: dict[str, list[tuple[Measured, Seeds]]] = {}
    for key in sorted(groups, key=repr):
        for ours, others in _meetings(*groups[key], alone=rule.against is None):
            if rule.bits_within is None or _near(runs, ours[0], others[0], rule.bits_within):
                raw.setdefault(key[0], []).extend(measure(runs, items, layers, rule, ours, others))
    described = set(columns).union(*variants)
    about = {name: value for name, value in rule.where.items() if name.startswith("model.")}
    meant = {runs.model[run] for run in runs.select(about)} if about else set(runs.models)
    by_model = {}
    for model in runs.models:
        if raw.get(model):
            by_model[model] = Found(_named(runs, described, raw[model]))
        elif model not in meant:
            by_model[model] = Found((), OTHER_MODEL)
        else:
            by_model[model] = Found(
                (), _missing(runs, rule, [[run for run in side if runs.model[run] == model] for side in both])
            )
    return by_model


def _variant_columns(runs: Runs, rule: Rule, shared: Sequence[str], against: bool = False) -> list[str]:
    """The columns in which runs of one side are different settings of it."""
    if against and rule.to_float:
        return []
    return [
        name
        for name in sorted(runs.columns)
        if name.startswith(("scheme.", "data.", "method.")) and name not in shared
    ]


def _meetings(
    ours: Mapping[tuple, list[int]], others: Mapping[tuple, list[int]], alone: bool
) -> Iterator[tuple[list[int], list[int]]]:
    for one in sorted(ours, key=repr):
        if alone:
            yield ours[one], ours[one]
        else:
            yield from ((ours[one], others[other]) for other in sorted(others, key=repr))


def _near(runs: Runs, one: int, other: int, limit: float) -> bool:
    bits = [finite(runs.get("bits_per_weight", run)) for run in (one, other)]
    return None not in bits and abs(bits[0] - bits[1]) <= limit


def _named(runs: Runs, columns: set[str], raw: Sequence[tuple[Measured, Seeds]]) -> tuple[Comparison, ...]:
    """The comparisons with their settings: bits and groups always, anything else where it tells two of them
    apart.
    """
    pairs = [next(iter(seeds.values())) for _, seeds in raw]
    columns = columns - set(HEAD)
    distinguishing = [
        [name for name in sorted(columns) if _differs(runs, side, name)] for side in zip(*pairs, strict=True)
    ]
    names = short_names(sorted({*distinguishing[0], *distinguishing[1]}))
    comparisons = []
    for (measured, seeds), pair in zip(raw, pairs, strict=True):
        words = [runs.scheme(pair[0])]
        for name in sorted({*distinguishing[0], *distinguishing[1]}):
            values = [
                value_text(runs.get(name, run))
                for run, own in zip(pair, distinguishing, strict=True)
                if name in own
            ]
            label = "" if name == "method.name" else f"{names[name]}="
            words.append(
                ("against " if name not in distinguishing[0] else "")
                + label
                + " / ".join(dict.fromkeys(values))
            )
        used = [run for pair in seeds.values() for run in dict.fromkeys(pair)]
        keys = tuple(dict.fromkeys(str(runs.get("run_key", run)) for run in used))
        comparisons.append(
            Comparison(
                measured,
                ", ".join(filter(None, words)),
                keys,
                any(runs.get("fallbacks", run) for run in used),
            )
        )
    return tuple(comparisons)


def _differs(runs: Runs, side: Sequence[int], name: str) -> bool:
    """Whether the runs of one side differ in a column; in the settings of a method, whether runs of one
    method do.
    """
    kin = ["method.name"] if name.startswith("method.") else []
    return len({runs.values([*kin, name], run) for run in side}) > len(
        {runs.values(kin, run) for run in side}
    )


def _missing(runs: Runs, rule: Rule, own: Sequence[list[int]]) -> str:
    """Why there is nothing to compare on the model whose runs of either side these are."""
    filters = (rule.side, rule.against)[: 1 if rule.against is None else 2]
    brief = rule.against is not None and not same_method(rule)
    absent = [_called(entry, brief) for entry, side in zip(filters, own, strict=False) if not side]
    if absent:
        return f"no run of {', none of '.join(dict.fromkeys(absent))}"
    for entry, side in zip(filters, own, strict=False):
        if not any(usable(runs, rule, run) for run in side):
            return _unusable(runs, _called(entry, brief), side)
    if rule.against is None:
        return "not recorded"
    if not rule.from_items:
        return "the runs hold no such number, or differ in the calibration, the scheme or the seed"
    if not all(any(protocols_of(runs, rule, run) for run in side) for side in own):
        return "not measured"
    return "the runs differ in the calibration, the scheme, the seed or the protocol"


def _unusable(runs: Runs, name: str, side: Sequence[int]) -> str:
    ended = sorted({str(runs.get("status", run)) for run in side} - {"done"})
    if any(runs.get("status", run) == "done" for run in side):
        return f"its weights had only {value_text(runs.get('model.source_bits', side[0]))} bits to begin with"
    return f"every run of {name} ended as {', '.join(ended)}"


def _called(filters: Mapping[str, Any], brief: bool) -> str:
    """A side in words: its method, and unless this is to be brief what singles it out."""
    named = filters.get("method.name", "a method with")
    rest = [
        _condition(name.rpartition(".")[2], value) for name, value in filters.items() if name != "method.name"
    ]
    return " ".join(
        [
            named[0] if isinstance(named, list) else named,
            *([] if brief and "method.name" in filters else rest),
        ]
    )


def _condition(name: str, value: Any) -> str:
    if value is None:
        return f"without {name}"
    if isinstance(value, dict):
        return " ".join(
            f"{name}{sign}{value[end]:g}" for end, sign in (("min", "≥"), ("max", "≤")) if end in value
        )
    return f"{name}={','.join(map(str, value)) if isinstance(value, list) else value_text(value)}"
