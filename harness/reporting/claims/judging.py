"""What the comparisons of a claim amount to: one verdict for each claim and model.

A comparison of perplexities or accuracies tests the hypothesis that the effect equals the claim's bound, by a
paired bootstrap over the same windows or items. The p-values of all comparisons of the whole ledger are
corrected together after Holm. Where the corrected one is below 5 %, the comparison holds or fails, by the
side of the bound that the effect is on; otherwise it is open: a tie, or too few items. Errors of layers,
stored bits, seconds and the like are compared as they are: there is nothing to draw them from a second time.
Exactly on a bound that excludes itself they are open too.

Over the comparisons of a claim on a model (corpora, settings):

    every    supported if all hold; contradicted if one fails
    most     supported if more than half hold; contradicted if more than half fail
    some     ("up to") supported if one holds; contradicted if all fail: these runs stay below what the paper
             reached at best

and undecided otherwise. Not testable where nothing can be compared. Runs that diverged or failed take part in
no comparison, on either side: a method does not win because its rival broke down, and what broke down is to
be read in the tables. Nor do runs on weights that had no more bits than the scheme before anyone quantized
them, but for what they cost. Runs with fallbacks count, and are marked.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import t as student

from harness.records.measurements import Items, Layers
from harness.reporting.claims.matching import Comparison, compare
from harness.reporting.claims.reading import BOUNDS, Claim, Rule
from harness.reporting.claims.runs import Runs
from harness.reporting.tables.bootstrap import RESAMPLES, Paired, holm, paired_rows

SUPPORTED, CONTRADICTED, UNDECIDED, UNTESTABLE = "supported", "contradicted", "undecided", "not testable"
HOLDS, FAILS, OPEN = "holds", "fails", "open"
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Judged:
    """A comparison with its outcome, the 95 % interval of its effect and its corrected p-value; None where
    there are none.
    """

    comparison: Comparison
    outcome: str
    low: float | None = None
    high: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Verdict:
    """`why` says why nothing can be said; `model` is what the ledger calls the model."""

    claim: Claim
    model: str
    word: str
    judged: tuple[Judged, ...]
    why: str = ""


def judge(
    frame: pd.DataFrame, items: Items, claims: Sequence[Claim], layers: Layers | None = None
) -> list[Verdict]:
    """A verdict for every claim on every model of the records, claim by claim; see the head of this file for
    the rules.

    Args:
        frame: as `load_records` gives it.
        layers: where the errors of single linears are read; without it, claims about them are not testable.
    """
    runs = Runs(frame)
    found = [
        (claim, model, entry)
        for claim in claims
        for model, entry in compare(runs, items, layers, claim).items()
    ]
    tests = iter(_tested([comparison for _, _, entry in found for comparison in entry.comparisons]))
    verdicts = []
    for claim, model, entry in found:
        judged = tuple(_judged(claim.rule, comparison, next(tests)) for comparison in entry.comparisons)
        word = verdict_of(claim.rule.over, [one.outcome for one in judged])
        verdicts.append(Verdict(claim, runs.models[model], word, judged, entry.why))
    return verdicts


def verdict_of(over: str, outcomes: Sequence[str]) -> str:
    """The verdict from the outcomes of single comparisons."""
    holds, fails, count = outcomes.count(HOLDS), outcomes.count(FAILS), len(outcomes)
    if not count:
        return UNTESTABLE
    enough, too_many = {"every": (count, 1), "most": (count // 2 + 1, count // 2 + 1), "some": (1, count)}[
        over
    ]
    if fails >= too_many:
        return CONTRADICTED
    return SUPPORTED if holds >= enough else UNDECIDED


def _tested(comparisons: Sequence[Comparison]) -> list[Paired | None]:
    """The paired test of each comparison, with the p-value corrected for all of them; None where there is
    nothing to test.
    """
    samples = [comparison.measured.beyond for comparison in comparisons]
    tests: list[Paired | None] = [None] * len(samples)
    for count in sorted({len(sample) for sample in samples if sample is not None}):
        indices = [
            index for index, sample in enumerate(samples) if sample is not None and len(sample) == count
        ]
        for index, test in zip(
            indices, paired_rows(np.stack([samples[index] for index in indices])), strict=True
        ):
            tests[index] = test and replace(test, p=_beyond_resamples(test.p, samples[index]))
    corrected = iter(holm([test.p for test in tests if test is not None]))
    return [test and replace(test, p=next(corrected)) for test in tests]


def _beyond_resamples(p: float, sample: np.ndarray) -> float:
    """The p-value, by the paired t test where no resample came near: a bootstrap cannot tell one in ten
    thousand from less, which a correction for some hundreds of comparisons would take for nothing.
    """
    if p > 1 / RESAMPLES:
        return p
    error = sample.std(ddof=1) / math.sqrt(len(sample))
    return min(p, float(2 * student.sf(abs(sample.mean()) / error, len(sample) - 1))) if error else 0.0


def _judged(rule: Rule, comparison: Comparison, test: Paired | None) -> Judged:
    measured = comparison.measured
    beyond = (measured.effect - rule.bound) * BOUNDS[rule.sense]  # positive where the claim is true
    if measured.exact:
        inclusive = rule.sense.startswith("at_")
        return Judged(
            comparison, HOLDS if beyond > 0 or (inclusive and beyond == 0) else OPEN if beyond == 0 else FAILS
        )
    if test is None:
        return Judged(comparison, OPEN)
    ends = [
        end + rule.bound if rule.effect == "difference" else math.exp(end) * rule.bound
        for end in (test.low, test.high)
    ]
    outcome = OPEN if test.p >= SIGNIFICANT else HOLDS if beyond > 0 else FAILS
    return Judged(comparison, outcome, *ends, test.p)
