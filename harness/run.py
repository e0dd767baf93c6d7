"""One run is a straight line: model, calibration, quantize block by block, evaluate, record."""

import logging
import resource
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
import yaml

from harness import assets, corpora
from harness.blocks import ModelBlocks
from harness.checkpoint import save
from harness.config import Device, RunConfig
from harness.errors import UserError
from harness.evaluation import evaluate
from harness.keys import baseline_of, plain, run_key, semantic, statistics_key
from harness.models import LoadedModel, load_model
from harness.pipeline import quantize
from harness.preflight import skip_reason
from harness.progress import Stages, console, label, outcome, stages
from harness.records import Store, describe
from harness.reports import BlockReport, Diverged, SolveError, Walked, summary
from harness.statistics import StatisticsCache
from harness.tracking import Tracker, make_tracker

log = logging.getLogger(__name__)


def run(config: RunConfig) -> dict:
    """Run one point and return its record; a finished point is read back, not computed again.

    Never raises for what goes wrong inside the run: that is a record with another status.
    """
    store, key = Store(config.paths.results), run_key(config)
    if store.finished(key, config.save):
        return store.record(key)
    reason = skip_reason(config)
    baseline = run(baseline_of(config)) if config.method.solver and not reason else None
    description = describe(config, key)
    directory, tracker = store.open(key), make_tracker(config.tracker.name)
    with _logging_to(directory / "log.txt"), stages(label(config)) as progress:
        log.info("%s, run key %s", label(config), key)
        reset_peak_memory()
        tracker.start(config, description, directory)
        walked = Walked()
        if reason:
            ending = {"status": "skipped", "reason": reason}
        else:
            ending = _guarded(lambda: _straight_line(config, baseline, store, walked, tracker, progress))
        record = description | ending
        items = record.pop("items", {})
        tracker.finish(record)
        tables = {"layers": [asdict(layer) for layer in walked.layers], "blocks": [block.row() for block in walked.blocks]}
        store.commit(key, record, items, tables, yaml.safe_dump(plain(semantic(config))))
        log.info("status %s", record["status"])
    console.print(outcome(config, record))
    return record


def _guarded(line: Callable[[], dict]) -> dict:
    """How the run ended, whatever happened in it."""
    try:
        return line()
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        return _ended("oom", f"out of memory ({_first_line(error)}); try a smaller data.batch_size or eval.batch_size", error)
    except Diverged as error:
        return _ended("diverged", str(error), error)
    except Exception as error:
        reason = str(error) if isinstance(error, UserError | SolveError) else f"{type(error).__name__}: {_first_line(error)}"
        return _ended("failed", reason, error)


def _straight_line(config: RunConfig, baseline: dict | None, store: Store, walked: Walked, tracker: Tracker, progress: Stages) -> dict:
    clock = Clock()
    quantizes = config.method.solver is not None
    if baseline and baseline["status"] != "done":
        raise UserError(f"the float baseline {baseline['run_key']} ended as {baseline['status']}: {baseline['reason']}")
    with clock.time("load"):
        loaded = load_model(config.model, device_name(config.device))
    if quantizes:
        with clock.time("walk"):
            _quantize(config, loaded, walked, tracker, progress)
        if config.save:
            with clock.time("save"):
                save(loaded.model, loaded.tokenizer, store.directory(run_key(config)) / "checkpoint", {"run_key": run_key(config)})
    with clock.time("evaluate"):
        result = evaluate(
            loaded.model, loaded.tokenizer, config.eval, config.model.bos, config.model.dtype.name, config.eval.seed, progress.update
        )
    return {
        "status": "done",
        "reason": None,
        "family": loaded.family.name,
        "metrics": {name: asdict(metric) for name, metric in result.metrics.items()},
        "items": result.items,
        "baseline": baseline and {"run_key": baseline["run_key"], "metrics": baseline["metrics"]},
        "seconds": seconds_of(clock, walked),
        "peak_memory_bytes": peak_memory(),
    } | summary(walked)


def _quantize(config: RunConfig, loaded: LoadedModel, walked: Walked, tracker: Tracker, progress: Stages) -> None:
    data, source = config.data, ModelBlocks(loaded.model, loaded.family)
    cache = StatisticsCache(
        assets.cache_dir() / "statistics", statistics_key(config), len(source), source.statistics_bytes(), config.paths.cache_gib
    )

    def tokens() -> torch.Tensor:
        documents = corpora.documents(data.name, "train", data.mirror)
        return corpora.calibration_tokens(documents, loaded.tokenizer, data.samples, data.window, config.seed, config.model.bos)

    log.info("calibration statistics: %s", "reused from disk" if cache.complete() else "computed")
    progress.update("quantize", 0, len(source))

    def note(index: int, text: str) -> None:
        progress.update("quantize", index, len(source), text)

    for report in quantize(source, tokens, config.method, config.scheme, data, cache, note):
        if isinstance(report, BlockReport):
            walked.blocks.append(report)
            tracker.block(len(walked.layers), report)
            told = " ".join(f"{name} {value:.4g}" for name, value in report.stats.items())
            log.info("%s output error %.6g seconds %.3f %s %s", report.name, report.error, report.seconds, told, report.fallback or "")
            continue
        walked.layers.append(report)
        tracker.layer(len(walked.layers), report)
        outliers = f"outliers {report.outliers:.5f} " if report.outliers else ""
        facts = report.layer, report.error, report.bits, outliers, report.seconds, report.fallback or ""
        log.info("%s error %.6g bits %.4f %sseconds %.3f %s", *facts)
        note(report.block, f"{report.linear} error {report.error:.3g}")


def device_name(device: Device) -> str:
    """cpu or cuda; `auto` takes a GPU where one is visible."""
    if device is Device.auto:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device.name


def seconds_of(clock: "Clock", walked: Walked) -> dict[str, float]:
    """Seconds by stage; the walk is `transform`, `quantize` (in the solver) and `calibrate` (forward passes, Hessians, scoring)."""
    seconds = clock.seconds()
    walk = seconds.pop("walk", None)
    if walk is None:
        return seconds
    solving, rewriting = (sum(report.seconds for report in reports) for reports in (walked.layers, walked.blocks))
    parts = {"calibrate": walk - solving - rewriting, "quantize": solving} | ({"transform": rewriting} if rewriting else {})
    return seconds | {name: round(value, 3) for name, value in parts.items()}


class Clock:
    """Seconds by stage."""

    def __init__(self):
        self._start, self.stages = time.perf_counter(), {}

    @contextmanager
    def time(self, stage: str):
        start = time.perf_counter()
        yield
        self.stages[stage] = time.perf_counter() - start

    def seconds(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in self.stages.items()} | {"total": round(time.perf_counter() - self._start, 3)}


def reset_peak_memory() -> None:
    """Start the peak counters anew, so that a run in a long process reports its own peak."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # not Linux: the peak is then the process's
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, int]:
    """Peak bytes since the last reset."""
    try:
        status = Path("/proc/self/status").read_text().splitlines()
        cpu = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"cpu": cpu, "gpu": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0}


def _ended(status: str, reason: str, error: BaseException) -> dict:
    log.error("%s: %s", status, reason, exc_info=error)
    return {"status": status, "reason": " ".join(reason.split())}


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]


@contextmanager
def _logging_to(path: Path):
    """Send every INFO line of ours to the run's log; the traceback of a failed run goes here, not to the terminal."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    ours = logging.getLogger("harness")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        yield
    finally:
        ours.removeHandler(handler)
        handler.close()


if __name__ == "__main__":
    import sys

    from harness.cli import main

    sys.exit(main(["run", *sys.argv[1:]]))
