"""The file of numbers that papers printed, reports/reference/published.csv, line by line; and what hubs call
the papers' models.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from harness.records.record import finite

NAMES = {  # of corpora and tasks, and what papers call them
    "wikitext2": "WikiText2",
    "ptb": "PTB",
    "c4": "C4",
    "lambada_openai": "LAMBADA",
    "piqa": "PIQA",
    "arc_easy": "ARC-e",
    "arc_challenge": "ARC-c",
    "boolq": "BoolQ",
    "hellaswag": "HellaSwag",
    "winogrande": "WinoGrande",
}
COSTS = {"cost_h": "hours.quantize", "mem_GB": "inference_memory", "tok/s": "tokens_per_second"}
MEANS = ("Avg6", "AvgQA")
ANY_MEAN = "mean"


@dataclass(frozen=True)
class Printed:
    """One line of published.csv; `metric` is called as in our records, `text` as in the paper."""

    paper: str
    table: str
    model: str
    method: str  # ours where it is one of ours, else the paper's word for it
    setting: str  # what the method's name leaves out
    bits: float | None  # of the scheme, or, where `stored`, per weight with everything
    stored: bool
    act_bits: int | None
    group_size: int | None
    outlier_ratio: float
    outlier_structure: str | None
    metric: str
    window: int | None
    text: str
    note: str
    source: str

    @property
    def value(self) -> float:
        return float(self.text)


@cache
def printed_numbers() -> tuple[Printed, ...]:
    """All of them, in the order of the file; none where the file is not there."""
    return tuple(found for row in _rows("published.csv") if (found := _printed(row)) is not None)


@cache
def hub_models() -> dict[str, str]:
    """Hub id in lower case -> what papers call the model."""
    return {row["hub_id"].lower(): row["model"] for row in _rows("models.csv")}


def _printed(row: Mapping[str, str]) -> Printed | None:
    """One line of the file, None where records know nothing like it (sizes of checkpoints)."""
    dataset, metric = row["dataset"], row["metric"]
    subject = {paper: ours for ours, paper in NAMES.items()}.get(dataset)
    window = re.fullmatch(r"ppl\(seqlen(\d+)\)", metric)
    kind = "perplexity" if window else "acc"
    name = ANY_MEAN if dataset in MEANS else COSTS.get(metric) or (f"{kind}/{subject}" if subject else None)
    if name is None:
        return None
    return Printed(
        paper=row["paper"],
        table=row["table"],
        model=row["model"],
        method=row["ours"] or row["method"],
        setting=row["setting"],
        bits=finite(row["bits"]),
        stored=row["rate"] == "stored",
        act_bits=None if row["abits"] == "16" else int(row["abits"]),
        group_size=int(row["group"]) if row["group"] else None,
        outlier_ratio=float(row["outlier"] or 0),
        outlier_structure=row["structure"] or None,
        metric=name,
        window=int(window[1]) if window else None,
        text=row["value"],
        note=row["note"],
        source=row["source"],
    )


def _rows(name: str) -> Sequence[dict[str, str]]:
    try:
        text = files("reports.reference").joinpath(name).read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError):
        return []
    return list(csv.DictReader(text.splitlines()))
