"""Invented runs as trackers meet them: reports while they go on, and the files that they leave."""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from harness.config.groups import TrackerConfig
from harness.foundation.seals import seal
from harness.quantization.layer_reports import BlockReport, LayerReport
from tests.helpers.invented_records import ended, metric, record

WANDB = TrackerConfig("wandb", "offline", "ptq-bench")
LINEARS = ("q_proj", "down_proj")


def reports(blocks: int = 3) -> list[LayerReport | BlockReport]:
    """Of each block its linears, then itself; with gaps as real runs have them."""
    told: list[LayerReport | BlockReport] = []
    for block in range(blocks):
        for place, linear in enumerate(LINEARS):
            damping, fallback = (0.01, "damping raised") if place and block else (None, None)
            sizes = {"out_features": 64, "in_features": 32 + 32 * place}
            numbers = {
                "error": 0.1 / (block + 1),
                "bits": 3.03125,
                "outliers": 0.01 * place,
                "seconds": 0.125 * place,
            }
            told.append(
                LayerReport(
                    f"model.layers.{block}.{linear}",
                    block,
                    linear,
                    **sizes,
                    **numbers,
                    damping=damping,
                    fallback=fallback,
                )
            )
        stats = {"loss_before": 2.0, "loss_after": 1.0 / 3} | ({"condition": 7.5} if block == 1 else {})
        told.append(BlockReport(f"model.layers.{block}", block, 0.2, 1.5, 128, 4096, stats, None))
    return told


def done(key: str = "5f" * 8, **changes) -> dict:
    """The record of such a run."""
    baseline = {"run_key": "ba" * 8, "metrics": {"perplexity/wiki": metric(15.0, 1.0)}}
    found = record(key, "gptq", 3, 17.25, baseline=baseline, **changes) | {"attempt": 1}
    found["metrics"]["perplexity/wiki"]["stderr"] = 1.5
    return found


def failed(key: str, reason: str = "no luck") -> dict:
    return ended(key, "failed", reason) | {"attempt": 1}


def leave(results: Path, record: dict, told: list[LayerReport | BlockReport]) -> Path:
    """Write what the store keeps of a run."""
    directory = results / "runs" / record["run_key"]
    directory.mkdir(parents=True, exist_ok=True)
    layers = [asdict(report) for report in told if isinstance(report, LayerReport)]
    blocks = [report.row() for report in told if isinstance(report, BlockReport)]
    for name, rows in {"layers": layers, "blocks": blocks}.items():
        if rows:
            pd.DataFrame(rows).to_parquet(directory / f"{name}.parquet", index=False)
    (directory / "record.json").write_bytes(seal(record))
    return directory


def go_by(
    tracker, results: Path, record: dict, told: list[LayerReport | BlockReport], config: TrackerConfig = WANDB
) -> Path:
    """A run with a tracker, in no time."""
    directory = results / "runs" / record["run_key"]
    directory.mkdir(parents=True, exist_ok=True)
    early = ("schema", "run_key", "attempt", "model", "data", "scheme", "method", "eval", "seed", "versions")
    tracker.start(SimpleNamespace(tracker=config), {name: record[name] for name in early}, directory)
    steps = 0
    for report in told:
        steps += isinstance(report, LayerReport)
        (tracker.layer if isinstance(report, LayerReport) else tracker.block)(steps, report)
    leave(results, record, told)
    tracker.finish(record)
    return directory
