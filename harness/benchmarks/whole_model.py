"""Solver seconds of a whole small model, beside one calibration forward pass on the same machine."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from harness.benchmarks.layers import MODEL, calibration, method_named
from harness.benchmarks.measure import timed
from harness.config.compose import scheme_named
from harness.config.groups import DataConfig, Propagate
from harness.foundation.cache import cache_dir
from harness.models.loading import LoadedModel, load_model
from harness.quantization.blocks import ModelBlocks
from harness.quantization.hessian_cache import StatisticsCache
from harness.quantization.pipeline import quantize
from harness.quantization.walk import Walk
from methods.contracts.scheme import RangeRule

TIMED = ("gptq", "quantease", "quantease_gptq")


def whole_model() -> Iterator[str]:
    """Sentences: all linears of SmolLM2, and the calibration forward that the same machine needs for 128 x
    512 tokens.
    """
    loaded = load_model(MODEL, "cpu")
    tokens = calibration(loaded, 128)
    forward, _ = timed(lambda: run_blocks(loaded, tokens), 1)
    yield f"one calibration forward of 128 x 512 tokens through SmolLM2's 30 blocks: {forward:.1f} s"
    for name in TIMED:
        fresh = load_model(MODEL, "cpu")
        source = ModelBlocks(fresh.model, fresh.family)
        cache = StatisticsCache(
            cache_dir() / "statistics", "bench", len(source), source.statistics_bytes(), 10
        )
        data = DataConfig("wiki", 32, 512, 8, Propagate.float, True, False, None)
        scheme = replace(scheme_named("w3"), range=RangeRule.search)
        walk = Walk(source, method_named(name), scheme, data, cache)
        reports = list(quantize(walk, lambda: tokens[:32]))
        seconds = sum(report.seconds for report in reports)
        share = f"{seconds / forward:.2f} of that forward"
        yield f"{name}, 3 bits, all {len(reports)} linears: {seconds:.1f} s ({share})"


@torch.no_grad()
def run_blocks(loaded: LoadedModel, tokens: Tensor) -> None:
    for batch in tokens.split(8):
        loaded.model.base_model(batch, use_cache=False)
