"""Numbers that papers printed, found beside a measured one, or as records of their own.

A number belongs beside a measured one where model, method and scheme agree. A difference is taken only where
the protocol agrees too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pandas as pd

from harness.records.protocol import PerplexityProtocol, parse
from harness.records.record import finite
from harness.reporting.cells import Cell, Notes
from harness.reporting.labels import FLOAT, present, signed
from harness.reporting.papers.reference import ANY_MEAN, COSTS, NAMES, Printed, hub_models, printed_numbers

# papers that say bits per weight instead of a scheme round them, and some forget the norms
STORED_BITS = 0.05


@dataclass(frozen=True)
class Shape:
    """Which of a paper's numbers belong beside a table; all its tables where none is named."""

    paper: str = ""
    tables: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conditions:
    """Under what a paper measured: dtypes of the model, calibration (corpus, samples, window), corpora that
    it leaves unclear.
    """

    dtypes: tuple[str, ...]
    calibration: tuple[str, int, int] | None
    unclear: Mapping[str, str]


WINDOWS = {"c4": 256}  # of what papers do not read whole
VARIANT = "the paper does not say which variant of the text"
PAPERS = {
    "QuantEase": Conditions(("float16",), ("c4", 128, 2048), {}),
    "AffineQuant": Conditions(("float16",), ("wikitext2", 128, 2048), {"ptb": VARIANT, "c4": VARIANT}),
    "VPTQ": Conditions(("float16", "bfloat16"), None, {"c4": VARIANT}),
    "GPTQ": Conditions(("float16",), ("c4", 128, 2048), {}),
}


def beside(cell: Cell, record: Mapping[str, Any], metric: str, shape: Shape, notes: Notes) -> Cell:
    """The cell with what the paper printed for the same model, method and scheme, if it did.

    Args:
        record: one of the runs behind the cell.
    """
    found = [
        (differences(one, record, cell.protocol), one)
        for one in _candidates(shape, record)
        if _same_value(one, metric)
    ]
    if not found or cell.value is None:
        return cell
    why, one = min(found, key=lambda pair: len(pair[0]))  # the first of those that agree most
    extra = notes.number(f"{one.paper}, Table {one.table.removeprefix('T')}: {one.note}") if one.note else ""
    if why or not math.isfinite(one.value):
        text = (
            f"published under another protocol, so that no difference is taken: {'; '.join(why)}"
            if why
            else "published as it stands"
        )
        detail = f"[published {one.text}{notes.number(text)}{extra}]"
        return replace(cell, detail=f"{cell.detail} {detail}".lstrip(), published=one.value)
    gap = cell.value - one.value
    calibrated = _calibration(one.paper, record)
    extra += notes.number(calibrated) if calibrated else ""
    detail = f"[published {one.text}, {signed(f'{gap:.2f}')}{extra}]"
    return replace(cell, detail=f"{cell.detail} {detail}".lstrip(), published=one.value, gap=gap)


def differences(one: Printed, record: Mapping[str, Any], protocol: str) -> list[str]:
    """In words, what the paper's protocol has and the measured one has not; empty where they agree."""
    kind, _, subject = one.metric.partition("/")
    if kind != "perplexity":
        return [
            "the time of another machine"
            if one.metric in COSTS.values()
            else "an early or unstated version of lm-eval and its tasks"
        ]
    ours, conditions = parse(protocol), PAPERS.get(one.paper)
    if not isinstance(ours, PerplexityProtocol) or not conditions:
        return ["conditions that cannot be compared"]
    asked = record.get(f"eval.windows.{subject}", record.get("eval.windows"))
    meant = WINDOWS.get(subject)
    pairs = [
        (ours.window != one.window, f"windows of {one.window} tokens, not {ours.window}"),
        (
            present(asked) and asked != meant,
            f"{f'{meant} windows' if meant else 'the whole text'}, not {ours.windows} windows",
        ),
        (ours.stride != "disjoint", f"disjoint windows, not {ours.stride}"),
        (ours.bos != "stream", "one stream of text, not a BOS in every window"),
        (ours.dtype not in conditions.dtypes, f"{' or '.join(conditions.dtypes)}, not {ours.dtype}"),
        (subject in conditions.unclear, conditions.unclear.get(subject, "")),
    ]
    return [text for differs, text in pairs if differs]


def published_frame(shape: Shape) -> pd.DataFrame:
    """The numbers of a paper in the form of records: one per model, method and setting, nothing that runs
    alone know.
    """
    records: dict[tuple, dict[str, Any]] = {}
    for one in _of_shape(shape):
        if one.model not in shape.models:
            continue
        scheme = (
            () if one.stored else (one.group_size, one.act_bits, one.outlier_ratio, one.outlier_structure)
        )
        key = (one.model, one.method, one.setting, one.bits, scheme)
        record = records.setdefault(key, _record(one, f"published {len(records):05}"))
        protocol = f"windows of {one.window} tokens" if one.window else f"as {one.paper} prints it"
        entry = {"value": one.value, "stderr": None, "protocol": protocol, "printed": one}
        known = record["metrics"].get(one.metric)
        # of two windows the longer: the paper's own
        if known is None or (one.window or 0) > (known["printed"].window or 0):
            record["metrics"][one.metric] = entry
        if one.outlier_ratio:  # of two tables one may not repeat it
            record |= {
                "scheme.outlier_ratio": one.outlier_ratio,
                "scheme.outlier_structure": one.outlier_structure,
            }
    return pd.DataFrame(list(records.values()), dtype=object)


def _record(one: Printed, key: str) -> dict[str, Any]:
    is_float = one.method == FLOAT
    stored = f"{one.bits:g} bits" if one.stored else ""
    return {
        "run_key": key,
        "status": "done",
        "model.name": one.model,
        "model.id": one.model,
        "method.name": one.method,
        "method.setting": " · ".join(filter(None, (stored, one.setting))),
        "scheme.bits": None if is_float or one.bits is None else round(one.bits),
        "scheme.group_size": one.group_size,
        "scheme.act_bits": one.act_bits,
        "scheme.outlier_ratio": one.outlier_ratio,
        "scheme.outlier_structure": one.outlier_structure,
        "bits_per_weight": one.bits if one.stored else None,
        "metrics": {},
        "baseline": {},
        "fallbacks": (),
    }


def _candidates(shape: Shape, record: Mapping[str, Any]) -> list[Printed]:
    model = hub_models().get(str(record.get("model.id")).lower())
    return (
        [
            one
            for one in _of_shape(shape)
            if one.model == model and not one.setting and _same_scheme(one, record)
        ]
        if model
        else []
    )


@cache
def _of_shape(shape: Shape) -> tuple[Printed, ...]:
    """A paper's numbers, those of the tables named first in front."""
    found = [
        one
        for one in printed_numbers()
        if one.paper == shape.paper and (not shape.tables or one.table in shape.tables)
    ]
    return tuple(sorted(found, key=lambda one: shape.tables.index(one.table) if shape.tables else 0))


def _same_value(one: Printed, metric: str) -> bool:
    return one.metric == metric or (one.metric == ANY_MEAN and metric.startswith("mean:"))


def _same_scheme(one: Printed, record: Mapping[str, Any]) -> bool:
    if one.method != record["method.name"]:
        return False
    if one.method == FLOAT:
        return True
    ratio = finite(record.get("scheme.outlier_ratio")) or 0
    structure = record.get("scheme.outlier_structure") if ratio else None
    coarse = present(record.get("scheme.scale_bits")) or present(record.get("scheme.kv_bits"))
    if (
        coarse
        or finite(record.get("scheme.act_bits")) != one.act_bits
        or (ratio, structure) != (one.outlier_ratio, one.outlier_structure)
    ):
        return False
    if one.stored:
        weighed = finite(record.get("bits_per_weight"))
        return weighed is not None and one.bits is not None and abs(weighed - one.bits) <= STORED_BITS
    return (finite(record.get("scheme.bits")), finite(record.get("scheme.group_size"))) == (
        one.bits,
        one.group_size,
    )


def _calibration(paper: str, record: Mapping[str, Any]) -> str:
    """What to say of the paper's calibration text where the run's is another."""
    wanted = PAPERS[paper].calibration
    found = tuple(record.get(f"data.{name}") for name in ("name", "samples", "window"))
    if wanted is None or found == wanted or not present(found[0]):
        return ""
    name, samples, window = wanted
    return f"the paper calibrates on {NAMES[name]}, {samples} samples of {window} tokens; this run did not"
