"""The ledger as tables: what these records say of each claim of the papers, model by model, with the numbers
that decide.
"""

from collections import Counter
from collections.abc import Sequence

from harness.foundation.text import visible
from harness.records.measurements import Layers
from harness.reporting.cells import FALLBACK_MARK, Cell, Notes, Row, Table
from harness.reporting.claims.judging import (
    CONTRADICTED,
    FAILS,
    HOLDS,
    OPEN,
    SUPPORTED,
    UNDECIDED,
    UNTESTABLE,
    Judged,
    Verdict,
    judge,
)
from harness.reporting.claims.matching import OTHER_MODEL
from harness.reporting.claims.reading import BOUNDS, Claim, load_claims
from harness.reporting.claims.wording import in_words
from harness.reporting.tables.run_cells import FALLBACK_NOTE

__all__ = ["UNTESTED", "Layers", "headline", "judge", "ledger_tables", "load_claims"]

UNTESTED = "Claims not testable with these runs"
WORDS = (SUPPORTED, CONTRADICTED, UNDECIDED)
TONES = {SUPPORTED: "good", CONTRADICTED: "bad", UNDECIDED: "open", UNTESTABLE: ""}
MODELS_ABREAST = 3  # columns of words; more models get a table of their own
LISTED = 12  # comparisons in a tooltip
SUMMARY_CAPTION = (
    "Verdicts on every model. Supported and contradicted: the paired test over the same windows or items "
    "excludes the claim's bound at 5 %, corrected for all comparisons of this ledger after Holm; undecided: "
    "it does not. Stored bits, layer errors and times are compared as they are. An “up to” that is "
    "contradicted says that these runs stay below what the paper reached at best. Claims that can be tested "
    "on no model here are counted once."
)
CAPTION = (
    "Under each verdict the comparison that decides: the one with the least to spare; for “up to” the one "
    "with the most, for claims about most comparisons the middle one. In brackets its 95 % interval; p is "
    "that of the claim's bound, corrected."
)


def headline(verdicts: Sequence[Verdict]) -> str:
    """The ledger in one sentence."""
    claims = {verdict.claim.id for verdict in verdicts}
    testable = [verdict for verdict in verdicts if verdict.word != UNTESTABLE]
    tested = len({verdict.claim.id for verdict in testable})
    if not testable:
        return (
            f"None of the {len(claims)} claims can be tested with these runs."
            if claims
            else "There are no claims to test."
        )
    models = dict.fromkeys(verdict.model for verdict in testable)
    per_model = {model: Counter(one.word for one in testable if one.model == model) for model in models}
    if len(per_model) > MODELS_ABREAST:
        parts = [f"{_counts(Counter(one.word for one in testable))}, over {len(per_model)} models together"]
    else:
        parts = [f"{_counts(counts)} on {visible(model)}" for model, counts in per_model.items()]
    return (
        f"Of {len(claims)} claims of the papers {tested} can be tested with these runs: {'; '.join(parts)}."
    )


def ledger_tables(verdicts: Sequence[Verdict]) -> list[Table]:
    """A summary, a table for each paper with the claims that could be tested, and a list of what the others
    need.
    """
    if not verdicts:
        return []
    papers = list(dict.fromkeys(verdict.claim.paper for verdict in verdicts))
    tables = [_summary(verdicts, papers)]
    for paper in papers:
        tables += _paper(
            paper,
            [one for one in verdicts if one.claim.paper == paper],
            CAPTION if len(tables) == 1 else "Read as the one above.",
        )
    return tables + _untested(verdicts, papers)


def _counts(counts: Counter) -> str:
    return ", ".join(f"{counts[word]} {word}" for word in WORDS)


def _by_claim(verdicts: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        found.setdefault(verdict.claim.id, []).append(verdict)
    return found


def _tested(verdicts: Sequence[Verdict]) -> bool:
    return any(verdict.word != UNTESTABLE for verdict in verdicts)


def _summary(verdicts: Sequence[Verdict], papers: Sequence[str]) -> Table:
    rows = []
    for label, names in [(paper, {paper}) for paper in papers] + [("all", set(papers))]:
        own = [verdict for verdict in verdicts if verdict.claim.paper in names]
        words = Counter(verdict.word for verdict in own)
        words[UNTESTABLE] = sum(not _tested(group) for group in _by_claim(own).values())
        cells = (
            Cell(str(words[word]), value=float(words[word]), tone=TONES[word] if words[word] else "")
            for word in (*WORDS, UNTESTABLE)
        )
        rows.append(Row(visible(label), "", tuple(cells)))
    return Table(
        "claims", "Claims of the papers", "", SUMMARY_CAPTION, ("Paper", *WORDS, UNTESTABLE), tuple(rows)
    )


def _paper(paper: str, verdicts: Sequence[Verdict], caption: str) -> list[Table]:
    """The tested claims of one paper: claims down, models across."""
    tested = {verdict.claim.id for verdict in verdicts if verdict.word != UNTESTABLE}
    models = list(dict.fromkeys(verdict.model for verdict in verdicts if verdict.word != UNTESTABLE))
    tables = []
    for start in range(0, len(models), MODELS_ABREAST):
        shown = models[start : start + MODELS_ABREAST]
        own = [verdict for verdict in verdicts if verdict.model in shown and verdict.claim.id in tested]
        notes, rows = Notes(), []
        for group in _by_claim(own).values():
            if _tested(group):
                cells = {verdict.model: _cell(verdict, notes) for verdict in group}
                rows.append(_row(group[0].claim, tuple(cells[model] for model in shown), notes))
        part = f" ({start // MODELS_ABREAST + 1})" if len(models) > MODELS_ABREAST else ""
        head = ("Claim", *map(visible, shown))
        title = f"Claims: {visible(paper)}{part}"
        tables.append(Table("claims", title, "", caption, head, tuple(rows), notes.lines(), textual=True))
    return tables


def _row(claim: Claim, cells: tuple[Cell, ...], notes: Notes) -> Row:
    label = f"{visible(claim.statement)} ({visible(claim.source)})"
    return Row(label, "", cells, notes.number(claim.note) if claim.note else "")


def _cell(verdict: Verdict, notes: Notes) -> Cell:
    if verdict.word == UNTESTABLE:
        return Cell(UNTESTABLE, visible(verdict.why), why=visible(verdict.why))
    rule, judged = verdict.claim.rule, _ranked(verdict)
    marks = ""
    if any(judgement.comparison.fallbacks for judgement in judged):
        notes.mark(FALLBACK_NOTE)
        marks = FALLBACK_MARK
    lines = [
        f"{judgement.outcome}: {in_words(rule, judgement, claimed=False)}" for judgement in judged[:LISTED]
    ]
    lines += [f"and {len(judged) - LISTED} more"] if len(judged) > LISTED else []
    keys = tuple(dict.fromkeys(key for judgement in judged for key in judgement.comparison.run_keys))
    detail = in_words(rule, _deciding(rule.over, judged)) + _others(judged)
    why = "; ".join(lines) if len(judged) > 1 else ""
    return Cell(verdict.word, detail, marks, run_keys=keys, tone=TONES[verdict.word], why=why)


def _ranked(verdict: Verdict) -> list[Judged]:
    """The comparisons, the one that speaks most against the claim first."""
    rule, order = verdict.claim.rule, {FAILS: 0, OPEN: 1, HOLDS: 2}
    return sorted(
        verdict.judged,
        key=lambda one: (order[one.outcome], one.comparison.measured.effect * BOUNDS[rule.sense]),
    )


def _deciding(over: str, ranked: Sequence[Judged]) -> Judged:
    return ranked[{"every": 0, "most": (len(ranked) - 1) // 2, "some": -1}[over]]


def _others(judged: Sequence[Judged]) -> str:
    if len(judged) == 1:
        return ""
    counts = Counter(one.outcome for one in judged)
    verbs = {HOLDS: ("holds", "hold"), FAILS: ("fails", "fail"), OPEN: ("is open", "are open")}
    said = [
        f"{counts[word]} {verbs[word][counts[word] > 1]}" for word in (HOLDS, FAILS, OPEN) if counts[word]
    ]
    return f". Of {len(judged)} comparisons {', '.join(said)}"


def _untested(verdicts: Sequence[Verdict], papers: Sequence[str]) -> list[Table]:
    """What nobody could test here: why, and the runs that would tell. Claims about other models, and those
    that nothing here can make runs for, share a line.
    """
    rows = []
    for paper in papers:
        groups = [
            group
            for group in _by_claim([one for one in verdicts if one.claim.paper == paper]).values()
            if not _tested(group)
        ]
        elsewhere = [group for group in groups if _elsewhere(group)]
        impossible = [group for group in groups if not group[0].claim.overrides and group not in elsewhere]
        lines = [
            _untested_row(group) for group in groups if group not in elsewhere and group not in impossible
        ]
        lines += _together("On other models", elsewhere) + _together(
            "Nothing here can make the runs", impossible
        )
        rows += [Row(visible(paper), "", ()), *lines] if lines else []
    caption = "What is missing, and what ptq-bench run would need to be told."
    head = ("Claim", "Why not", "Runs that would tell")
    return [Table("claims", UNTESTED, "", caption, head, tuple(rows), textual=True)] if rows else []


def _elsewhere(group: Sequence[Verdict]) -> bool:
    return all(verdict.why == OTHER_MODEL for verdict in group)


def _together(label: str, groups: Sequence[Sequence[Verdict]]) -> list[Row]:
    if not groups:
        return []
    claims = [group[0].claim for group in groups]
    needs = dict.fromkeys(_model(claim.overrides) or claim.needs for claim in claims)
    said = Cell(" ".join(visible(claim.statement) for claim in claims))
    return [Row(f"{label} ({len(claims)})", "", (said, Cell("; ".join(map(visible, needs)))))]


def _model(overrides: str) -> str:
    """Of overrides that name another model just that."""
    return " ".join(word for word in overrides.split() if word.startswith("model.id=")) or overrides


def _untested_row(group: Sequence[Verdict]) -> Row:
    claim = group[0].claim
    reasons = list(dict.fromkeys(verdict.why for verdict in group))
    if len(reasons) == 1:
        why = reasons[0]
    else:
        why = "; ".join(f"{verdict.model}: {verdict.why}" for verdict in group[:MODELS_ABREAST])
        why += f"; and {len(group) - MODELS_ABREAST} models more" if len(group) > MODELS_ABREAST else ""
    return Row(visible(claim.statement), "", (Cell(visible(why)), Cell(visible(claim.overrides))))
