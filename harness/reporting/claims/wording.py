"""The comparison behind a verdict in words: both numbers with their units, the effect, its interval and p."""

import math

from harness.foundation.text import visible
from harness.reporting.claims.judging import Judged
from harness.reporting.claims.reading import ACCURACY, LAYERS, PERPLEXITY, Rule
from harness.reporting.labels import signed
from harness.reporting.measures import KINDS, Measure

NUMBER = Measure("", "", "", 0, digits=3)
BOUND_WORDS = {"below": "below", "at_most": "at most", "above": "above", "at_least": "at least"}


def in_words(rule: Rule, judged: Judged, claimed: bool = True) -> str:
    """One comparison, e.g. "583 against 538 on wikitext2, 3 bits: ratio 1.08 (0.98 to 1.20), p = 0.157"."""
    measured, setting = judged.comparison.measured, visible(judged.comparison.setting)
    subject = visible(measured.subject)
    said = " against ".join(_quantity(rule, value) for value in (measured.a, measured.b) if value is not None)
    said = f"mean error {said}" if rule.kind == LAYERS else said
    said += {PERPLEXITY: f" on {subject}", ACCURACY: f", {subject}"}.get(rule.kind, "")
    said += f", {setting}" if setting else ""
    if rule.effect == "value":
        bound = _quantity(rule, rule.bound)
        return f"{said}; claimed: {BOUND_WORDS[rule.sense]} {bound}" if claimed else said
    said += f": {_effect(rule, measured.effect)}" + (f" ({subject})" if rule.kind == LAYERS else "")
    if judged.low is not None:
        low, high = (_effect(rule, end, bare=True) for end in (judged.low, judged.high))
        said += f" ({low} to {high}), {_p(judged.p)}"
    elif not measured.exact:
        said += ", no windows or items to test it with"
    if rule.bound == (1 if rule.effect == "ratio" else 0) or not claimed:
        return said
    return f"{said}; claimed: {BOUND_WORDS[rule.sense]} {_effect(rule, rule.bound, bare=True)}"


def _effect(rule: Rule, value: float, bare: bool = False) -> str:
    if rule.effect == "ratio":
        return ("" if bare else "ratio ") + NUMBER.text(value)
    if rule.kind == ACCURACY:
        return signed(f"{100 * value:.1f}") + ("" if bare else " points")
    return signed(NUMBER.text(value))


def _quantity(rule: Rule, value: float) -> str:
    """A measured number with its unit."""
    if rule.kind == PERPLEXITY:
        return KINDS[PERPLEXITY].text(value)
    if rule.kind == ACCURACY:
        return f"{100 * value:.1f} %"
    if rule.kind == LAYERS:
        return NUMBER.text(value)
    if "bytes" in rule.measure:
        return f"{NUMBER.text(value / 2**30)} GiB"
    if rule.measure.startswith("seconds."):
        return f"{NUMBER.text(value)} s" if value < 3600 else f"{NUMBER.text(value / 3600)} h"
    if rule.measure == "runtime_overhead.share":
        return f"{100 * value:.3g} % more multiply-adds"
    return f"{NUMBER.text(value)} {rule.measure.rpartition('.')[2].replace('_', ' ')}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {min(value, 1.0):.3f}" if math.isfinite(value) else ""
