"""Claims of the papers as `reports/reference/claims.yaml` writes them down: statements with a source, and a
rule to test on records.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from harness.foundation.errors import UserError

KINDS = ("ordering", "magnitude", "up to", "ablation", "cost")
# on which side of the bound the claim is true
BOUNDS = {"below": -1, "at_most": -1, "above": +1, "at_least": +1}
EFFECTS = ("ratio", "difference", "value")
OVER = ("every", "most", "some")
OF_LAYERS = ("median", "best")
PERPLEXITY, ACCURACY, LAYERS = "perplexity", "acc", "layer_error"
FLOAT = {"method.name": "float"}


@dataclass(frozen=True)
class Rule:
    """What must be true of pairs of runs.

    `measure` is "perplexity" or "acc" (with /prefix: of these corpora or tasks alone), "layer_error" (of
    every linear), or else a column of the records. The effect is side / against, side − against, or the
    side's own value. `every`: a claim about each comparison; `most`: about more than half of them; `some`: an
    "up to". Filters are dotted columns with a value, a list of values, or {min, max}; `vary` names columns
    that the two sides need not share; `bits_within` keeps to pairs whose weighed bits per weight differ by no
    more.
    """

    measure: str
    effect: str
    sense: str
    bound: float
    over: str
    side: Mapping[str, Any]
    against: Mapping[str, Any] | None
    where: Mapping[str, Any]
    vary: tuple[str, ...]
    layers: str
    bits_within: float | None

    @property
    def kind(self) -> str:
        return self.measure.partition("/")[0]

    @property
    def from_items(self) -> bool:
        """Whether the comparison is of windows or items and has an interval; all else is exact."""
        return self.kind in (PERPLEXITY, ACCURACY)

    @property
    def to_float(self) -> bool:
        return self.against == FLOAT


@dataclass(frozen=True)
class Claim:
    """`overrides` make the runs that the rule compares, "" where nothing here can make them; `note` corrects
    or restricts the claim.
    """

    id: str
    paper: str
    source: str
    kind: str
    statement: str
    needs: str
    overrides: str
    note: str
    rule: Rule


def load_claims() -> list[Claim]:
    """The claims that come with the package, in the order of the file; none where there is no such file.

    Raises:
        UserError: an entry that cannot be read; names the entry and the key.
    """
    try:
        text = files("reports.reference").joinpath("claims.yaml").read_text(encoding="utf-8")
    except (FileNotFoundError, ModuleNotFoundError):
        return []
    return read_claims(text)


def _safely(text: str) -> Any:
    """yaml.safe_load, ten times as fast where libyaml is there."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def read_claims(text: str) -> list[Claim]:
    """The claims in the text of such a file."""
    try:
        entries = _safely(text) or []
    except yaml.YAMLError as error:
        raise UserError(f"claims.yaml is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(entries, list):
        raise UserError("claims.yaml is no list of claims")
    claims = [_claim(entry, place) for place, entry in enumerate(entries, start=1)]
    names = [claim.id for claim in claims]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"claims.yaml: {name}: id is taken twice")
    return claims


def _claim(entry: Any, place: int) -> Claim:
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise UserError(f"claims.yaml: entry {place} has no id")
    reader = _Reader(
        entry["id"],
        entry,
        {"id", "paper", "source", "kind", "statement", "needs", "overrides", "note", "test"},
    )
    rule = _rule(_Reader(entry["id"], reader.mapping("test"), _RULE_KEYS))
    kind = reader.one_of("kind", KINDS)
    words = {key: reader.text(key) for key in ("paper", "source", "statement", "needs")}
    return Claim(
        id=entry["id"],
        kind=kind,
        overrides=reader.text("overrides", ""),
        note=reader.text("note", ""),
        rule=rule,
        **words,
    )


_RULE_KEYS = {
    "measure",
    "effect",
    *BOUNDS,
    "over",
    "side",
    "against",
    "where",
    "vary",
    "layers",
    "bits_within",
}


def _rule(reader: "_Reader") -> Rule:
    bounds = [key for key in BOUNDS if key in reader.entry]
    if len(bounds) != 1:
        raise reader.broken("test", f"needs one of {', '.join(BOUNDS)}")
    against = reader.entry.get("against")
    rule = Rule(
        measure=reader.text("measure"),
        effect=reader.one_of("effect", EFFECTS),
        sense=bounds[0],
        bound=reader.number(bounds[0]),
        over=reader.one_of("over", OVER),
        side=reader.mapping("side"),
        against=FLOAT
        if against == "float"
        else reader.mapping("against")
        if "against" in reader.entry
        else None,
        where=reader.mapping("where", {}),
        vary=tuple(reader.texts("vary")),
        layers=reader.one_of("layers", OF_LAYERS) if "layers" in reader.entry else "",
        bits_within=reader.number("bits_within") if "bits_within" in reader.entry else None,
    )
    _check(rule, reader)
    return rule


def _check(rule: Rule, reader: "_Reader") -> None:
    wanted = {PERPLEXITY: "ratio", ACCURACY: "difference", LAYERS: "ratio"}.get(rule.kind)
    if wanted not in (None, rule.effect):
        raise reader.broken("effect", f"must be {wanted} for {rule.kind}")
    if (rule.against is None) != (rule.effect == "value"):
        raise reader.broken("against", "goes with ratio and difference, and with them alone")
    if bool(rule.layers) != (rule.kind == LAYERS):
        raise reader.broken("layers", "goes with layer_error, and with it alone")
    if rule.effect == "ratio" and rule.bound <= 0:
        raise reader.broken(rule.sense, "must be positive for a ratio")


@dataclass(frozen=True)
class _Reader:
    """One mapping of the file; complains in one line that names the claim and the key."""

    claim: str
    entry: Mapping[str, Any]
    known: set[str]

    def __post_init__(self):
        for key in self.entry:
            if key not in self.known:
                raise self.broken(str(key), "is no known key")

    def broken(self, key: str, why: str) -> UserError:
        return UserError(f"claims.yaml: {self.claim}: {key} {why}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.entry.get(key, default)
        if not isinstance(value, str) or (default is None and not value.strip()):
            raise self.broken(key, "must be a text")
        return " ".join(value.split())

    def texts(self, key: str) -> list[str]:
        value = self.entry.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise self.broken(key, "must be a list of column names")
        return value

    def number(self, key: str) -> float:
        value = self.entry.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.broken(key, "must be a number")
        return float(value)

    def one_of(self, key: str, known: tuple[str, ...]) -> str:
        value = self.entry.get(key)
        if value not in known:
            raise self.broken(key, f"must be one of {', '.join(known)}")
        return value

    def mapping(self, key: str, default: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        value = self.entry.get(key, default)
        if not isinstance(value, dict) or (default is None and not value):
            raise self.broken(key, "must be a mapping")
        return value
