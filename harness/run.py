"""One run is a straight line: model, calibration, quantize block by block, evaluate, record."""

import logging
import shutil
import time
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial

import torch
import yaml

from harness.bookkeeping.costs import Clock, highest, seconds_of
from harness.bookkeeping.description import describe, versions
from harness.bookkeeping.endings import guarded, skip_reason
from harness.bookkeeping.kept_models import KeptModel, kept_model
from harness.bookkeeping.keys import baseline_of, plain, semantic, statistics_key
from harness.bookkeeping.point import Point
from harness.bookkeeping.run_log import logging_to
from harness.bookkeeping.token_ids import CALIBRATION, changed, token_ids
from harness.bookkeeping.words import label
from harness.checkpoints.checkpoint import is_intact, save
from harness.config.groups import Propagate
from harness.config.run_config import RunConfig
from harness.data import corpora
from harness.data.windows import calibration_tokens
from harness.evaluation.evaluate import evaluate
from harness.evaluation.subject import Subject, refusing_overflow
from harness.foundation.cache import cache_dir
from harness.foundation.errors import UserError
from harness.foundation.files import remove_leftovers
from harness.foundation.resources import device_name, peak_memory, reset_peak_memory
from harness.models.families import family_of
from harness.models.loading import LoadedModel, load_model
from harness.models.tokenizers import tokenizer_of, with_bos
from harness.quantization.blocks import ModelBlocks
from harness.quantization.hessian_cache import StatisticsCache
from harness.quantization.layer_reports import BlockReport, Walked, summary
from harness.quantization.pipeline import quantize
from harness.quantization.resume import Resume
from harness.quantization.walk import Walk
from harness.records import layout
from harness.records.attempts import attempts, claim, holder
from harness.records.format import FAILED, FINISHED
from harness.records.progress import Stages
from harness.tracking.tracker import Tracker, make_tracker

log = logging.getLogger(__name__)


def run(point: Point) -> dict:
    """Run one point in this process and return its record; a finished point is read back, not computed again.

    Waits while another process works on it. Never raises for what goes wrong inside the run: that is a record
    with another status.
    """
    awaited = 0
    while not point.finished():
        directory = point.store.open(point.key)
        if mine := claim(directory):
            with mine:
                return run_claimed(point, mine.number)
        awaited = attempts(directory)
        while holder(directory):
            time.sleep(0.2)
        record = point.record()
        if record and record.get("attempt", 0) >= awaited:
            return record  # however it ended, it was somebody's attempt at this very moment
    return point.record()


def run_claimed(point: Point, attempt: int) -> dict:
    """The same for who has claimed the run's `attempt`."""
    if point.finished():  # since we looked
        return point.record()
    config, store, key = point.config, point.store, point.key
    directory = store.open(key)
    remove_leftovers(directory, hours=0)  # nobody else writes here
    with logging_to(directory / layout.LOG):
        log.info("%s, run key %s, attempt %d", label(config), key, attempt)
        if said := changed(point.record(), config):
            log.warning("the record that is there was %s", said)
        reset_peak_memory()
        reason = skip_reason(config)
        baseline = _baseline(config) if config.method.solver and not reason else None
        description = describe(config, key) | {"attempt": attempt}
        walked, progress = Walked(), Stages(directory / layout.PROGRESS, label(config), attempt)
        tracker = make_tracker(config.tracker.name)
        tracker.start(config, description, directory)
        if reason:
            ending = {"status": "skipped", "reason": reason}
        else:
            ending = guarded(lambda: _straight_line(point, baseline, walked, tracker, progress))
        items = ending.pop("items", {})
        tables = {
            "layers": [asdict(layer) for layer in walked.layers],
            "blocks": [block.row() for block in walked.blocks],
        }
        record = store.commit(
            key, description | ending, items, tables, yaml.safe_dump(plain(semantic(config)))
        )
        log.info("status %s", record["status"])
        if record["status"] in FINISHED:
            shutil.rmtree(directory / layout.RESUME, ignore_errors=True)
        tracker.finish(record)
    return record


def _baseline(config: RunConfig) -> dict:
    """The record of the unquantized model, computed now if nobody has."""
    float_model = Point.of(baseline_of(config))
    record = float_model.record()
    return record if record and record["status"] in FAILED and not config.retry else run(float_model)


def _straight_line(
    point: Point, baseline: dict | None, walked: Walked, tracker: Tracker, progress: Stages
) -> dict:
    clock, config, directory = Clock(), point.config, point.directory
    if baseline and baseline["status"] != "done":
        raise UserError(
            f"the float baseline {baseline['run_key']} ended as {baseline['status']}: {baseline['reason']}"
        )
    ids = token_ids(config)
    kept = Resume(directory / layout.RESUME, _identity(config, point.key) | {"token_ids": ids})
    reused = {"blocks": kept.blocks, "evaluations": kept.evaluations, "statistics": False}
    if donor := kept_model(point):
        loaded, made = _taken_over(donor, point, clock, reused)
    else:
        with clock.time("load"):
            loaded = load_model(config.model, device_name(config.device.value))
        if config.method.solver is not None:
            reused["statistics"] = _quantize(
                config, loaded, walked, tracker, progress, kept, ids[CALIBRATION]
            )
            clock.add("walk", kept.seconds())
            whole = reused["blocks"] == kept.blocks  # nothing new since a checkpoint that is there
            if config.save and not (whole and is_intact(directory / layout.CHECKPOINT)):
                _save(loaded, point, clock)
        made = summary(walked)
    subject = Subject(loaded.model, loaded.tokenizer, with_bos(config.model).bos, config.model.dtype.name)
    with nullcontext() if config.method.solver else refusing_overflow(loaded.model):
        result = evaluate(subject, config.eval, progress.update, kept.evaluated)
    clock.add("evaluate", result.seconds)
    return {
        "status": "done",
        "reason": None,
        "family": loaded.family.name,
        "token_ids": ids,
        "metrics": {name: metric.entry() for name, metric in result.metrics.items()},
        "items": result.items,
        "reused": reused,
        "baseline": baseline and {"run_key": baseline["run_key"], "metrics": baseline["metrics"]},
        "seconds": seconds_of(clock, walked),
        "peak_memory_bytes": highest(peak_memory(), donor.record["peak_memory_bytes"] if donor else {}),
    } | made


def _taken_over(donor: KeptModel, point: Point, clock: Clock, reused: dict) -> tuple[LoadedModel, dict]:
    """The quantized model that another run has kept, as if it had been made now, and what the record says of
    how it was made.
    """
    log.info("the quantized model is that of run %s; it is only evaluated", donor.key)
    reused["model"] = donor.key
    with clock.time("load"):
        model = donor.load(device_name(point.config.device.value))
    loaded = LoadedModel(model, tokenizer_of(point.config.model), family_of(model.config))
    made = donor.hand_on(point.directory, clock)
    if point.config.save:
        _save(loaded, point, clock)
    return loaded, made


def _save(loaded: LoadedModel, point: Point, clock: Clock) -> None:
    with clock.time("save"):
        save(loaded.model, loaded.tokenizer, point.directory / layout.CHECKPOINT, {"run_key": point.key})


def _identity(config: RunConfig, key: str) -> dict:
    """What must not have changed for a killed attempt's work to be this one's, bit for bit."""
    same = {name: versions()[name] for name in ("torch", "transformers", "numba", "numpy", "ptq_bench")}
    device = device_name(config.device.value)
    return same | {"run_key": key, "device": device, "threads": torch.get_num_threads()}


def _tokens(config: RunConfig, loaded: LoadedModel) -> torch.Tensor:
    """Those of calibration."""
    data, bos = config.data, with_bos(config.model).bos
    documents = corpora.documents(data.name, "train", data.mirror)
    return calibration_tokens(documents, loaded.tokenizer, data.samples, data.window, config.seed, bos)


def _quantize(
    config: RunConfig,
    loaded: LoadedModel,
    walked: Walked,
    tracker: Tracker,
    progress: Stages,
    kept: Resume,
    ids: str,
) -> bool:
    """Quantize all blocks; returns whether calibration statistics were there already."""
    data, source = config.data, ModelBlocks(loaded.model, loaded.family)
    shared = data.propagate is Propagate.float
    size = source.statistics_bytes() if shared else 0
    cache = StatisticsCache(
        cache_dir() / "statistics", statistics_key(config), len(source), size, config.paths.cache_gib, ids
    )
    known = shared and cache.complete()
    log.info("calibration statistics: %s", "reused from disk" if known else "computed")
    if kept.blocks:
        log.info("blocks that an attempt before has finished: %d of %d", kept.blocks, len(source))
    progress.update("quantize", 0, len(source))

    def note(index: int, text: str) -> None:
        progress.update("quantize", index, len(source), text)

    walk = Walk(source, config.method, config.scheme, data, cache, note)
    for report in quantize(walk, partial(_tokens, config, loaded), kept):
        if isinstance(report, BlockReport):
            walked.blocks.append(report)
            tracker.block(len(walked.layers), report)
            told = " ".join(f"{name} {value:.4g}" for name, value in report.stats.items())
            log.info(
                "%s output error %.6g seconds %.3f %s %s",
                report.name,
                report.error,
                report.seconds,
                told,
                report.fallback or "",
            )
            continue
        walked.layers.append(report)
        tracker.layer(len(walked.layers), report)
        outliers = f"outliers {report.outliers:.5f} " if report.outliers else ""
        facts = report.layer, report.error, report.bits, outliers, report.seconds, report.fallback or ""
        log.info("%s error %.6g bits %.4f %sseconds %.3f %s", *facts)
        note(report.block, f"{report.linear} error {report.error:.3g}")
    log.info("commits took %.3f of %.3f seconds, beside the work", kept.writing, kept.seconds())
    return known
