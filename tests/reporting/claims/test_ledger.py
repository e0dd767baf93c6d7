"""The claims ledger: each claim of the file on invented records that satisfy and that violate it, and what
may be compared at all.
"""

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.foundation.errors import UserError
from harness.records.measurements import Items
from harness.reporting.cells import Table
from harness.reporting.claims.judging import CONTRADICTED, SUPPORTED, UNDECIDED, UNTESTABLE
from harness.reporting.claims.ledger import Layers, headline, judge, ledger_tables, load_claims
from harness.reporting.claims.reading import read_claims
from harness.reporting.frames import load_records
from tests.helpers.invented_records import WIKI, keep_items, metric, record, store

CLAIMS = {claim.id: claim for claim in load_claims()}
CONFIGURED = Path(__file__).parents[3] / "conf"
TASKS = {"acc/piqa": 60, "acc/arc_easy": 100}  # two sizes: the mean over tasks is not the mean over items
BETTER = {"below": -1, "at_most": -1, "above": 1, "at_least": 1}


# -- inventing runs
#
# -----------------------------------------------------------------------------------------------------------


def invent(results: Path, claim, verdict: str, noise: float = 0.0) -> Path:
    """Two runs (or one) whose numbers lie clearly on one side of a claim's bound; with `noise`, the items
    scatter about that.
    """
    rule, true = claim.rule, verdict == SUPPORTED
    sign = BETTER[rule.sense] * (1 if true else -1)
    if rule.effect == "ratio":
        effect = rule.bound * 1.3**sign
    elif rule.effect == "difference":
        effect = rule.bound + 0.15 * sign
    else:
        effect = rule.bound * 1.3**sign if rule.bound else 0.2 * (not true)
    one = configured("1" * 16, rule.side, rule.where)
    runs = [one]
    if rule.against is not None:
        runs.append(configured("2" * 16, rule.against, rule.where))
        if runs[1]["method"]["name"] == "float":
            runs[1] |= {"scheme": None, "data": None, "bits_per_weight": None}
    if rule.bits_within:
        for entry in runs:
            entry["bits_per_weight"] = 3.1
    fill(results, runs, rule, effect, noise)
    return store(results, *runs)


def configured(key: str, own: dict, where: dict) -> dict:
    """A record with these fields; of alternatives the first."""
    entry = record(key, "invented", 3, scheme__zero_point="integer")
    entry["scheme"] |= {
        "act_bits": None,
        "kv_bits": None,
        "outlier_ratio": 0,
        "outlier_structure": "unstructured",
    }
    entry["method"] = {"name": "invented", "transform": None, "solver": None}
    for path, wanted in {**where, **own}.items():
        value = wanted[0] if isinstance(wanted, list) else wanted
        if isinstance(value, dict):
            low, high = value.get("min", 0), value.get("max", math.inf)
            value = (low + high) / 2 if math.isfinite(high) else 2 * low
        *groups, last = path.split(".")
        place = entry
        for group in groups:
            if not isinstance(place.get(group), dict):
                place[group] = {} if place.get(group) is None else {"_target_": place[group]}
            place = place[group]
        place[last] = value
    return entry


def fill(results: Path, runs: list[dict], rule, effect: float, noise: float) -> None:
    """Give the runs the numbers that make the effect, with the files beside their records."""
    rng = np.random.default_rng(7)
    kind, _, subject = rule.measure.partition("/")
    if kind == "perplexity":
        base = rng.normal(3, 0.4, 40)
        losses = [base + math.log(effect) + scatter(rng, 1e-3 + noise, 40), base]
        for entry, values in zip(runs, losses, strict=False):
            name = f"perplexity/{subject or 'wiki'}"
            entry["metrics"] = {name: metric(math.exp(values.mean()))}
            keep_items(results, entry["run_key"], {name: values})
    elif kind == "acc":
        names = {f"acc/{subject}_one": 60, f"acc/{subject}_two": 100} if subject else TASKS
        for entry, shift in zip(runs, (effect, 0.0), strict=False):
            values = {name: 0.4 + shift + scatter(rng, 0.01 + noise, count) for name, count in names.items()}
            entry["metrics"] = {
                name: metric(found.mean(), protocol=f"tasks, {name}") for name, found in values.items()
            }
            keep_items(results, entry["run_key"], values)
    elif kind == "layer_error":
        for entry, factor in zip(runs, (effect, 1.0), strict=False):
            place = results / "runs" / entry["run_key"]
            place.mkdir(parents=True)
            errors = 0.01 * factor * np.arange(1, 8)
            pd.DataFrame({"layer": [f"layer.{index}" for index in range(7)], "error": errors}).to_parquet(
                place / "layers.parquet"
            )
    else:
        other = 1000.0 if rule.effect == "ratio" else 3.0
        own = {"ratio": other * effect, "difference": other + effect, "value": effect}[rule.effect]
        for entry, value in zip(runs, (own, other), strict=False):
            *groups, last = rule.measure.split(".")
            place = entry
            for group in groups:
                place = place.setdefault(group, {})
            place[last] = value


def scatter(rng: np.random.Generator, size: float, count: int) -> np.ndarray:
    """Noise without a mean."""
    drawn = rng.normal(0, size, count)
    return drawn - drawn.mean()


def verdicts(results: Path, *claims):
    return judge(load_records(results).frame, Items(results), claims, Layers(results))


def word(results: Path, claim) -> str:
    found = verdicts(results, claim)
    assert len({one.model for one in found}) == len(found) == 1, [one.model for one in found]
    return found[0].word


# -- every claim
#
# -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize("verdict", [SUPPORTED, CONTRADICTED])
def test_a_claim_can_be_supported_and_contradicted(name, verdict, tmp_path):
    assert word(invent(tmp_path, CLAIMS[name], verdict), CLAIMS[name]) == verdict


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_needs_both_sides(name, tmp_path):
    store(tmp_path, record("3" * 16, "somebody"))
    found = verdicts(tmp_path, CLAIMS[name])
    assert [one.word for one in found] == [UNTESTABLE] and found[0].why


@pytest.mark.parametrize(
    "name",
    {
        (claim.rule.measure, claim.rule.over): name for name, claim in CLAIMS.items() if claim.rule.from_items
    }.values(),
)
def test_noise_decides_nothing(name, tmp_path):
    assert word(invent(tmp_path, CLAIMS[name], SUPPORTED, noise=3.0), CLAIMS[name]) == UNDECIDED


@pytest.mark.parametrize("name", CLAIMS)
def test_overrides_name_what_there_is(name):
    words = re.findall(r"(?<!\S)(method|scheme|data)=(\S+)", CLAIMS[name].overrides)
    for group, values in words:
        for value in values.rstrip(",").split(","):
            assert (CONFIGURED / group / f"{value}.yaml").is_file(), f"{group}={value}"
    assert CLAIMS[name].overrides or re.search(
        "not implemented|no such switch|do not hold", CLAIMS[name].needs
    )


def test_the_three_papers_are_there():
    papers = [claim.paper for claim in CLAIMS.values()]
    assert all(papers.count(paper) >= 15 for paper in ("QuantEase", "VPTQ", "AffineQuant"))


# -- what is compared
#
# -----------------------------------------------------------------------------------------------------------

ORDER = CLAIMS["quantease-3-bits"]
LEVEL_TASKS = CLAIMS["vptq-qa-gptvq"]


@pytest.mark.parametrize(
    "path, value",
    [
        ("data.samples", 64),
        ("scheme.range", "minmax"),
        ("scheme.group_size", 64),
        ("seed", 5),
        ("model.fingerprint", "sha256:" + "aa" * 32),
        ("metrics.perplexity/wiki.protocol", WIKI + ", other"),
    ],
)
def test_what_differs_is_never_paired(path, value, tmp_path):
    invent(tmp_path, ORDER, SUPPORTED)
    change(tmp_path, "2" * 16, path, value)
    assert {one.word for one in verdicts(tmp_path, ORDER)} == {UNTESTABLE}


def change(results: Path, key: str, path: str, value) -> None:
    file = results / "runs" / key / "record.json"
    entry = place = json.loads(file.read_text())
    *groups, last = path.split(".")
    for group in groups:
        place = place[group]
    place[last] = value
    file.write_text(json.dumps(entry))


def test_weights_that_had_no_more_bits_are_no_evidence_but_of_cost(tmp_path):
    invent(tmp_path / "a", ORDER, SUPPORTED)
    for key in ("1" * 16, "2" * 16):
        change(tmp_path / "a", key, "model.source_bits", 3)
    assert "only 3 bits" in verdicts(tmp_path / "a", ORDER)[0].why
    cost = CLAIMS["quantease-outlier-bits"]
    invent(tmp_path / "b", cost, SUPPORTED)
    for key in ("1" * 16, "2" * 16):
        change(tmp_path / "b", key, "model.source_bits", 3)
    assert word(tmp_path / "b", cost) == SUPPORTED


@pytest.mark.parametrize("status", ["diverged", "oom", "failed", "skipped"])
def test_nobody_wins_because_the_rival_broke_down(status, tmp_path):
    invent(tmp_path, ORDER, SUPPORTED)
    change(tmp_path, "2" * 16, "status", status)
    found = verdicts(tmp_path, ORDER)[0]
    assert found.word == UNTESTABLE and status in found.why and "gptq" in found.why


def test_identical_runs_are_a_tie(tmp_path):
    invent(tmp_path, ORDER, SUPPORTED)
    items = tmp_path / "runs" / ("2" * 16) / "items.json"
    (tmp_path / "runs" / ("1" * 16) / "items.json").write_bytes(items.read_bytes())
    value = json.loads((items.parent / "record.json").read_text())["metrics"]["perplexity/wiki"]["value"]
    change(tmp_path, "1" * 16, "metrics.perplexity/wiki.value", value)
    assert word(tmp_path, ORDER) == UNDECIDED


def test_without_items_nothing_is_decided(tmp_path):
    invent(tmp_path, ORDER, SUPPORTED)
    (tmp_path / "runs" / ("1" * 16) / "items.json").unlink()
    assert word(tmp_path, ORDER) == UNDECIDED


def test_seeds_are_averaged_and_matched(tmp_path):
    """Seed 0 speaks for the claim, seed 1 against it by as much more; a third seed that one side alone has
    does not count.
    """
    base = np.random.default_rng(0).normal(3, 0.4, 40)
    for number, (method, seed, shift) in enumerate(
        [
            ("quantease", 0, -0.1),
            ("gptq", 0, 0.0),
            ("quantease", 1, 0.3),
            ("gptq", 1, 0.0),
            ("quantease", 2, -9.0),
        ]
    ):
        losses = base + shift + np.random.default_rng(number).normal(0, 1e-3, 40)
        entry = record(f"{number:016}", method, 3, perplexity=math.exp(losses.mean()), seed=seed)
        keep_items(tmp_path, entry["run_key"], {"perplexity/wiki": losses})
        store(tmp_path, entry)
    found = verdicts(tmp_path, ORDER)[0]
    assert found.word == CONTRADICTED and len(found.judged) == 1
    measured = found.judged[0].comparison.measured
    assert math.log(measured.effect) == pytest.approx(0.1, abs=2e-3)
    assert len(found.judged[0].comparison.run_keys) == 4


def test_tasks_weigh_alike_whatever_their_size(tmp_path):
    """Minus 20 points on 900 items and plus 40 on 100: the mean over tasks says better, the mean over items
    worse.
    """
    for key, method, values in (("1" * 16, "vptq", (0.3, 0.8)), ("2" * 16, "gptvq", (0.5, 0.4))):
        rng = np.random.default_rng(len(method))
        items = {"acc/a": values[0] + rng.normal(0, 0.01, 900), "acc/b": values[1] + rng.normal(0, 0.01, 100)}
        entry = record(key, method, 2, bits_per_weight=2.1)
        entry["metrics"] = {name: metric(found.mean(), protocol=name) for name, found in items.items()}
        keep_items(tmp_path, entry["run_key"], items)
        store(tmp_path, entry)
    found = verdicts(tmp_path, LEVEL_TASKS)[0]
    judged = found.judged[0]
    assert found.word == SUPPORTED
    assert judged.comparison.measured.effect == pytest.approx(0.1, abs=0.01)
    assert judged.low < 0.1 < judged.high


def test_settings_are_compared_each_for_itself(tmp_path):
    """Two corpora, one for the claim and one against it: an "every" is contradicted, an "up to" is not."""
    rng = np.random.default_rng(3)
    base = rng.normal(3, 0.4, 40)
    for key, method, shifts in (("1" * 16, "quantease", (-0.4, 0.4)), ("2" * 16, "gptq", (0.0, 0.0))):
        items = {
            f"perplexity/{name}": base + shift + rng.normal(0, 1e-3, 40)
            for name, shift in zip(("a", "b"), shifts, strict=True)
        }
        entry = record(key, method)
        entry["metrics"] = {name: metric(math.exp(found.mean())) for name, found in items.items()}
        keep_items(tmp_path, entry["run_key"], items)
        store(tmp_path, entry)
    words = {one.claim.id: one.word for one in verdicts(tmp_path, ORDER, CLAIMS["quantease-15-percent"])}
    assert words == {"quantease-3-bits": CONTRADICTED, "quantease-15-percent": SUPPORTED}


def test_many_comparisons_make_a_single_one_weaker(tmp_path):
    """A difference that one test takes for real is undecided among hundreds that test nothing but noise."""
    rng = np.random.default_rng(11)
    base = rng.normal(3, 0.4, 16)
    shifts = rng.normal(0, 0.02, (2, 16))
    shifts[0] -= shifts[0].mean() - shifts[1].mean() + 0.02
    for key, method, shift in (("1" * 16, "quantease", shifts[0]), ("2" * 16, "gptq", shifts[1])):
        entry = record(key, method, perplexity=math.exp((base + shift).mean()))
        keep_items(tmp_path, entry["run_key"], {"perplexity/wiki": base + shift})
        store(tmp_path, entry)
    assert word(tmp_path, ORDER) == SUPPORTED
    assert {one.word for one in verdicts(tmp_path, *[ORDER] * 200)} == {UNDECIDED}


# -- the tables
#
# -----------------------------------------------------------------------------------------------------------


def test_the_tables_say_it(tmp_path):
    invent(tmp_path, ORDER, SUPPORTED)
    found = verdicts(tmp_path, *CLAIMS.values())
    tables = ledger_tables(found)
    assert all(isinstance(table, Table) and table.kind == "claims" for table in tables)
    assert all(len(row.cells) in (0, len(table.head) - 1) for table in tables for row in table.rows)
    cells = {
        row.label: row.cells[0]
        for table in tables
        if table.title == "Claims: QuantEase"
        for row in table.rows
    }
    cell = next(cell for label, cell in cells.items() if label.startswith(ORDER.statement))
    assert (cell.text, cell.tone) == (SUPPORTED, "good") and cell.run_keys == ("1" * 16, "2" * 16)
    assert re.search(
        r"against .* on wiki, 3 bits: ratio 0\.769 \(0\.769 to 0\.769\), p < 0\.001", cell.detail
    )
    summary = {row.label: [cell.text for cell in row.cells] for row in tables[0].rows}
    assert sum(map(int, summary["all"])) == len(CLAIMS)
    assert f"Of {len(CLAIMS)} claims" in headline(found) and "on toy" in headline(found)


def test_no_records_no_ledger(tmp_path):
    (tmp_path / "runs").mkdir(parents=True)
    assert ledger_tables(verdicts(tmp_path, *CLAIMS.values())) == []


def test_hostile_names_stay_in_their_cells(tmp_path):
    invent(tmp_path, ORDER, SUPPORTED)
    for key in ("1" * 16, "2" * 16):
        change(tmp_path, key, "model.name", "a\nb|<script>\x1b")
    tables = ledger_tables(verdicts(tmp_path, ORDER))
    texts = [
        text
        for table in tables
        for row in table.rows
        for cell in row.cells
        for text in (row.label, cell.text, cell.detail, cell.why)
    ]
    assert not any(
        ord(character) < 32
        for text in [*texts, *(name for table in tables for name in table.head)]
        for character in text
    )


def test_the_order_of_records_changes_nothing(tmp_path):
    invent(tmp_path, ORDER, SUPPORTED)
    one, other = (
        json.loads((tmp_path / "runs" / ("1" * 16) / "record.json").read_text()),
        json.loads((tmp_path / "runs" / ("2" * 16) / "record.json").read_text()),
    )
    store(tmp_path, *(entry | {"run_key": key * 16, "seed": 1} for entry, key in ((one, "3"), (other, "4"))))
    store(tmp_path, one | {"run_key": "5" * 16, "method": one["method"] | {"solver": {"sweeps": 3}}})
    frame = load_records(tmp_path).frame
    claims = list(CLAIMS.values())
    tables = ledger_tables(judge(frame, Items(tmp_path), claims, Layers(tmp_path)))
    assert tables and tables == ledger_tables(
        judge(frame.iloc[::-1].reset_index(drop=True), Items(tmp_path), claims, Layers(tmp_path))
    )


# -- the file
#
# -----------------------------------------------------------------------------------------------------------

GOOD = """
- id: one
  paper: P
  kind: ordering
  source: S
  statement: A
  needs: N
  test: {measure: perplexity, effect: ratio, below: 1, over: every,
         side: {method.name: a}, against: {method.name: b}}
"""


@pytest.mark.parametrize(
    "old, new, key",
    [
        ("kind: ordering", "kind: odd", "kind"),
        ("  source: S\n", "", "source"),
        ("below: 1", "below: one", "below"),
        ("below: 1, ", "", "test"),
        ("effect: ratio", "effect: difference", "effect"),
        ("over: every", "over: all", "over"),
        (", against: {method.name: b}", "", "against"),
        ("side: {method.name: a}", "side: a", "side"),
        ("needs: N", "needs: N\n  more: M", "more"),
        ("below: 1", "below: -1", "below"),
    ],
)
def test_a_broken_entry_is_named_in_one_line(old, new, key):
    assert read_claims(GOOD)[0].id == "one"
    with pytest.raises(UserError) as error:
        read_claims(GOOD.replace(old, new))
    assert "one" in str(error.value) and key in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "a: b", "- 3", "- {id: 3}", GOOD + GOOD])
def test_a_broken_file_is_one_line(text):
    with pytest.raises(UserError) as error:
        read_claims(text)
    assert "\n" not in str(error.value)
