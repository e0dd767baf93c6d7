"""What is told of a run: its name in a few words, where it is, and how it ended."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from harness.config.run_config import RunConfig
from harness.foundation.files import ASIDE
from harness.records.naming import method_name
from methods.core.scheme import ActRange, OutlierStructure, Scheme, ZeroPoint

INTERVAL = 1.0  # seconds between two notes of a stage
console = Console(stderr=True, highlight=False, soft_wrap=True)


def label(config: RunConfig) -> str:
    """A run in a few words, e.g. `smollm2-135m gptq w3 g16 search, 3-bit scales, 1 % outliers` or `smollm2-135m rtn w4 a4 minmax`."""
    words = [config.model.name, method_name(config.method_config)]
    return " ".join(words if config.method.solver is None else [*words, scheme_label(config.scheme)])


def scheme_label(scheme: Scheme) -> str:
    """A scheme in a few words, without what is switched off."""
    words = [f"w{scheme.bits}"] + ([f"g{scheme.group_size}"] if scheme.group_size else [])
    words += [f"a{scheme.act_bits}"] if scheme.act_bits else []
    words += [f"kv{scheme.kv_bits}"] if scheme.kv_bits else []
    words += [scheme.range.name] + (["float zero"] if scheme.zero_point is ZeroPoint.float else [])
    words += ["symmetric"] if scheme.symmetric else []
    extras = [f"{scheme.scale_bits}-bit scales"] if scheme.scale_bits else []
    if scheme.outlier_ratio:
        whole = " in whole columns" if scheme.outlier_structure is OutlierStructure.column else ""
        extras.append(f"{100 * scheme.outlier_ratio:g} % outliers{whole}")
    if scheme.quantizes_activations:
        ways = ["static"] if scheme.act_range is ActRange.tensor else []
        ways += ["symmetric"] if scheme.act_symmetric else []
        extras += [f"{' '.join(ways)} activations"] if ways else []
    return ", ".join([" ".join(words), *extras])


class Stages:
    """Where one run is, in a small file that anyone may read: the sweep that draws the bars, `ptq-bench status`, who asks what died."""

    def __init__(self, path: Path, label: str, attempt: int):
        self._path, self._told = path, {"label": label, "attempt": attempt, "stage": None}
        self._start = self._stage_start = time.monotonic()
        self._next = 0.0

    def update(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Tell that `done` of `total` steps of a stage are over; written at most once a second, and when a stage begins or ends."""
        now = time.monotonic()
        if stage != self._told["stage"]:
            self._stage_start = self._next = now
        self._told |= {"stage": stage, "done": done, "total": total, "note": note}
        if now >= self._next or done == total:
            self._next = now + INTERVAL
            self._write({"stage_seconds": now - self._stage_start, "seconds": now - self._start})

    def _write(self, times: dict[str, float]) -> None:
        aside = self._path.with_name(f"{ASIDE}{self._path.name}")
        with suppress(OSError):  # a full disk is for those to tell who write something that matters
            aside.write_text(json.dumps(self._told | times))
            os.replace(aside, self._path)


def outcome(config: RunConfig, record: dict) -> str:
    """One line that says how a run ended."""
    if record["status"] != "done":
        return f"[red]{record['status']}[/] {escape(label(config))}: {escape(str(record['reason']))}"
    metrics = ", ".join(f"{name.removeprefix('perplexity/')} {metric['value']:.4g}" for name, metric in record["metrics"].items())
    error = f", layer error {record['layer_error']['mean']:.4g}" if record["layer_error"] else ""
    share = f", {100 * record['outlier_share']:.3g} % outliers stored" if record["outlier_share"] else ""
    return f"[green]done[/] {escape(label(config))}: {metrics}{error}{share}, {record['seconds']['total']:.0f} s"
