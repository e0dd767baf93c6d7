"""Do 95 % intervals hold 95 %? Simulated, with as few windows and items as evaluations have."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import bootstrap

from harness.reporting.tables.bootstrap import FEWEST, RESAMPLES, holm, paired, paired_rows

LOSSES = {  # name: (samples of differences of losses, their mean)
    "normal": (lambda rng, shape: rng.normal(size=shape), 0.0),
    "heavy tails": (lambda rng, shape: rng.standard_t(5, size=shape), 0.0),
    "skewed": (lambda rng, shape: rng.gamma(4, size=shape), 4.0),
    "strongly skewed": (lambda rng, shape: rng.lognormal(0, 0.5, size=shape), np.exp(0.125)),
}


def coverage(differences: np.ndarray, truth: float) -> float:
    return float(
        np.mean(
            [pair.low <= truth + 1e-12 and truth - 1e-12 <= pair.high for pair in paired_rows(differences)]
        )
    )


def outcomes(rng, shape: tuple[int, int], gained: float, lost: float) -> np.ndarray:
    """Differences of outcomes 0 and 1 of two correlated runs."""
    drawn = rng.random(shape)
    return (drawn < gained) - 1.0 * (drawn > 1 - lost)


@pytest.mark.parametrize("name", LOSSES)
def test_intervals_of_losses_cover_what_they_say(name):
    """With the fewest windows, where it is hardest."""
    draw, truth = LOSSES[name]
    assert 0.93 <= coverage(draw(np.random.default_rng(8), (1000, 8)), truth) <= 0.975


@pytest.mark.parametrize("gained,lost", [(0.1, 0.1), (0.05, 0.15), (0.02, 0.3)])
@pytest.mark.parametrize("n", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_intervals_of_outcomes_cover_what_they_say(gained, lost, n):
    assert (
        0.93 <= coverage(outcomes(np.random.default_rng(n), (1000, n), gained, lost), gained - lost) <= 0.97
    )


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 16, 50, 200])
@pytest.mark.parametrize("name", LOSSES)
def test_intervals_of_losses_cover_what_they_say_at_length(name, n):
    draw, truth = LOSSES[name]
    assert 0.93 <= coverage(draw(np.random.default_rng(n), (8_000, n)), truth) <= 0.975


def test_the_plain_percentile_interval_would_not():
    rng = np.random.default_rng(0)
    sample = rng.normal(size=(400, 8))
    interval = bootstrap(
        (sample,), np.mean, axis=1, n_resamples=999, method="percentile", rng=rng
    ).confidence_interval
    assert np.mean((interval.low <= 0) & (interval.high >= 0)) < 0.91


def test_with_many_items_it_is_the_interval_of_scipy():
    sample = np.random.default_rng(0).gamma(4, size=400)
    theirs = bootstrap((sample,), np.mean, method="BCa", rng=np.random.default_rng(1)).confidence_interval
    ours = paired(sample, np.zeros(400))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.01)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_p_and_interval_agree(level):
    rng = np.random.default_rng(3)
    rows = [
        rng.normal(0.6, size=(300, 12)),
        outcomes(rng, (300, 50), 0.03, 0.2),
        outcomes(rng, (300, 12), 0.02, 0.5),
    ]
    for found in (paired_rows(one, level) for one in rows):
        excluded = [pair.low > 0 or pair.high < 0 for pair in found]
        assert excluded == [pair.p < 1 - level - 1e-12 for pair in found]
        assert 20 < sum(excluded) < 280


def test_both_ways_round_it_is_the_same():
    rng = np.random.default_rng(4)
    for a, b in [
        (rng.normal(size=9), rng.normal(size=9)),
        *(rng.integers(0, 2, (2, 50)).astype(float) for _ in range(5)),
    ]:
        there, back = paired(a, b), paired(b, a)
        assert (there.difference, there.low, there.high, there.p) == (
            -back.difference,
            -back.high,
            -back.low,
            back.p,
        )


def test_one_by_one_in_a_crowd_or_in_another_process_it_is_the_same():
    rows = np.random.default_rng(5).normal(0.3, size=(700, 16))
    together = paired_rows(rows)
    assert [paired(row, np.zeros(16)) for row in rows[::50]] == together[::50]
    assert paired_rows(rows[::-1]) == together[::-1]
    code = "from harness.reporting.tables.bootstrap import paired; "
    code += "print(paired([1, 2, 4, 3, 0, 2, 9], [0, 2, 3, 3, 1, 1, 1]))"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert told.stdout.strip() == str(paired([1, 2, 4, 3, 0, 2, 9], [0, 2, 3, 3, 1, 1, 1]))


def test_the_scale_does_not_matter():
    row = np.random.default_rng(6).normal(0.5, size=16)
    small, plain, large = (paired(row * scale, np.zeros(16)) for scale in (1e-12, 1, 1e12))
    assert small.p == plain.p == large.p
    assert (small.low * 1e12, large.high / 1e12) == pytest.approx((plain.low, plain.high))


def test_identical_runs_do_not_differ():
    same = paired(np.ones(8), np.ones(8))
    assert (same.difference, same.low, same.high, same.p, same.n) == (0, 0, 0, 1, 8)


def test_the_same_difference_everywhere_leaves_no_doubt():
    pair = paired(np.full(50, 0.3), np.full(50, 0.1))
    assert pair.low == pytest.approx(0.2) and pair.high == pytest.approx(0.2)
    assert pair.p == 1 / (RESAMPLES + 1)


@pytest.mark.parametrize("different", [1, 2, 3])
def test_a_few_outcomes_that_differ_are_no_evidence_and_give_a_finite_interval(different):
    pair = paired(np.r_[np.ones(different), np.zeros(50 - different)], np.zeros(50))
    assert pair.p > 0.05
    assert -0.2 < pair.low < 0 < pair.high < 0.4


@pytest.mark.parametrize(
    "a,b",
    [
        ([1.0] * (FEWEST - 1), [0.0] * (FEWEST - 1)),
        ([], []),
        (np.ones(9), np.ones(8)),
        (np.ones((8, 2)), np.ones((8, 2))),
        ([np.nan] + [1.0] * 8, np.ones(9)),
        ([np.inf] + [1.0] * 8, np.ones(9)),
    ],
)
def test_nothing_is_said_where_nothing_can_be(a, b):
    assert paired(a, b) is None


def test_one_that_is_not_finite_does_not_spoil_the_others():
    rows = np.random.default_rng(8).normal(size=(3, 10))
    spoilt = rows.copy()
    spoilt[1, 4] = np.nan
    clean = paired_rows(rows)
    assert paired_rows(spoilt) == [clean[0], None, clean[2]]


def test_holm_by_hand():
    assert holm([]) == []
    # 3 × .01; 2 × .03; at least what came before
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1, 1]
    # 4 × .01 and 3 × .01, of equals the larger; 2 × .02 is no more than that; 1 × .5
    assert holm([0.5, 0.01, 0.02, 0.01]) == pytest.approx([0.5, 0.04, 0.04, 0.04])
    assert holm(np.array([0.02])) == [0.02]
