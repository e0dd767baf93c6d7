"""What a table in a paper's shape is, written down in a small yaml file: which records, which lines, which
columns.

A file of `conf/report` is one table:

    title: words above it
    caption: more words (optional)
    paper: whose rows of reports/reference/published.csv belong beside it (optional)
    published_tables: [T1, …]; published_models: [OPT-1.3B, …]    which of them; all tables and no models
                                            where nothing is said
    where: {scheme.act_bits: null, …}       which records are meant
    rows:                                   groups of lines inside each model's part
      - {methods: [float, rtn]}
      - {head: words above the lines, where: …, methods: [gptq], label: what to call a single method}
    columns:                                groups of columns
      - {head: words above the columns, where: …, values: [perplexity/ptb, …], instead: [perplexity/*],
         each: scheme.group_size}

`where` names fields as reports do (scheme.bits, method.transform.stability); a list means any of these, null
and 0 also mean a field that the record lacks; the float model has no scheme, no calibration and no settings,
so that conditions on them do not concern it. `methods: ["*"]` are all there are. A value is a metric of
records ("perplexity/*": all perplexities that were measured; `instead` is for models on which none of the
values was), one of `COSTS`, or {value: …, label: head of the column} or {mean: [acc/…, …]}. `each` makes
columns for every value that a field has in the records meant.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from harness.foundation.did_you_mean import nearest_name
from harness.foundation.errors import UserError
from harness.reporting.papers.published import Shape
from harness.reporting.papers.reference import NAMES
from harness.reporting.tables.values import COSTS, MEAN

Where = Mapping[str, Any]
PARTS = ("model.", "data.", "scheme.", "method.", "eval.")
METRICS = ("perplexity", "acc", "acc_norm")
NEITHER = "neither a metric such as perplexity/wikitext2 or acc/piqa nor one of"


@dataclass(frozen=True)
class Value:
    metric: str  # of a record, one of COSTS, "mean:acc/a,acc/b", or "perplexity/*"
    label: str


@dataclass(frozen=True)
class Columns:
    values: tuple[Value, ...]
    head: str = ""
    where: Where = field(default_factory=dict)
    instead: tuple[Value, ...] = ()
    each: str = ""  # a field that the columns are repeated for, once for every value there is


@dataclass(frozen=True)
class Lines:
    methods: tuple[str, ...]
    head: str = ""
    label: str = ""
    where: Where = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    name: str
    title: str
    rows: tuple[Lines, ...]
    columns: tuple[Columns, ...]
    caption: str = ""
    paper: str = ""
    published_tables: tuple[str, ...] = ()
    published_models: tuple[str, ...] = ()
    where: Where = field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        """What of the paper belongs beside it."""
        return Shape(self.paper, self.published_tables, self.published_models)


@cache
def load_specs() -> dict[str, Spec]:
    """The tables of `conf/report`, by name."""
    texts = {
        file.name: file.read_text(encoding="utf-8")
        for file in files("conf.report").iterdir()
        if file.name.endswith(".yaml")
    }
    names = {name.removesuffix(".yaml"): name for name in sorted(texts)}
    return {name: _spec(texts[file], name, file) for name, file in names.items()}


def load_spec(path: str | Path) -> Spec:
    """A table of the user's own.

    Raises:
        UserError: the file cannot be read, or is no such table.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"table={path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    return _spec(text, path.stem, path.name)


def _spec(text: str, name: str, file: str) -> Spec:
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: no valid yaml: {' '.join(str(error).split())}") from error
    prefix = f"{file}: "
    _keys(document, prefix, Spec, required=("title", "rows", "columns"), without=("name",))
    return Spec(
        name=name,
        title=_word(document["title"], f"{prefix}title"),
        rows=tuple(
            _lines(entry, f"{prefix}rows[{number}]: ")
            for number, entry in enumerate(_list(document["rows"], f"{prefix}rows"))
        ),
        columns=tuple(
            _columns(entry, f"{prefix}columns[{number}]: ")
            for number, entry in enumerate(_list(document["columns"], f"{prefix}columns"))
        ),
        caption=_word(document.get("caption", ""), f"{prefix}caption"),
        paper=_word(document.get("paper", ""), f"{prefix}paper"),
        published_tables=_words(document.get("published_tables", []), f"{prefix}published_tables"),
        published_models=_words(document.get("published_models", []), f"{prefix}published_models"),
        where=_where(document, prefix),
    )


def _lines(entry: Any, prefix: str) -> Lines:
    _keys(entry, prefix, Lines, required=("methods",))
    methods = _words(entry["methods"], f"{prefix}methods")
    label = _word(entry.get("label", ""), f"{prefix}label")
    if label and len(methods) != 1:
        raise UserError(f"{prefix}label: goes with one method, not with {len(methods)}")
    return Lines(methods, _word(entry.get("head", ""), f"{prefix}head"), label, _where(entry, prefix))


def _columns(entry: Any, prefix: str) -> Columns:
    _keys(entry, prefix, Columns, required=("values",))
    values, instead = (
        tuple(_value(value, prefix) for value in _list(entry.get(key, []), f"{prefix}{key}"))
        for key in ("values", "instead")
    )
    if not values:
        raise UserError(f"{prefix}values: name at least one, e.g. perplexity/wikitext2")
    each = _word(entry.get("each", ""), f"{prefix}each")
    if each:
        _field(each, f"{prefix}each: ")
    return Columns(
        values, _word(entry.get("head", ""), f"{prefix}head"), _where(entry, prefix), instead, each
    )


def _value(entry: Any, prefix: str) -> Value:
    if isinstance(entry, str):
        return Value(_metric(entry, prefix), head_of(entry))
    _known(entry, prefix, ("value", "mean", "label"), "value")
    if ("value" in entry) == ("mean" in entry):
        raise UserError(f"{prefix}values: {entry!r}: give either value or mean")
    if "value" in entry:
        metric = _metric(_word(entry["value"], f"{prefix}value"), prefix)
    else:
        parts = [_metric(part, prefix) for part in _words(entry["mean"], f"{prefix}mean")]
        odd = [part for part in parts if part in COSTS or "*" in part]
        if len(parts) < 2 or odd:
            hint = f"not {odd[0]}" if odd else f"not {len(parts)}"
            raise UserError(f"{prefix}mean: takes two or more metrics, e.g. [acc/piqa, acc/arc_easy], {hint}")
        metric = MEAN + ",".join(parts)
    return Value(metric, _word(entry.get("label", head_of(metric)), f"{prefix}label"))


def head_of(metric: str) -> str:
    """What the head of a column says of a value where nobody chose a name."""
    if metric in COSTS:
        return COSTS[metric].label
    subject = metric.partition("/")[2]
    return "mean" if metric.startswith(MEAN) else NAMES.get(subject, subject)


def _metric(name: str, prefix: str) -> str:
    kind, _, subject = name.partition("/")
    if name in COSTS or (kind in METRICS and subject and (subject == "*" or "*" not in subject)):
        return name
    hint = nearest_name(name, [*COSTS, *(f"{known}/{subject or 'wikitext2'}" for known in METRICS)])
    why = f"unknown: {hint}" if hint else f"{NEITHER} {', '.join(COSTS)}"
    raise UserError(f"{prefix}values: {name!r} is {why}")


def _where(entry: Mapping, prefix: str) -> Where:
    where = entry.get("where", {})
    if not isinstance(where, dict):
        raise UserError(f"{prefix}where: give a mapping, e.g. {{scheme.bits: 3}}")
    for name, wanted in where.items():
        values = wanted if isinstance(wanted, list) else [wanted]
        _field(name, f"{prefix}where: ")
        if not values or not all(value is None or isinstance(value, str | int | float) for value in values):
            raise UserError(f"{prefix}where: {name}: give a value or a list of values")
    return where


def _field(name: Any, prefix: str) -> None:
    if not isinstance(name, str) or (not name.startswith(PARTS) and name != "seed"):
        raise UserError(
            f"{prefix}{name!r} is no field of a record; they begin with {', '.join(PARTS)} or are seed"
        )


def _keys(entry: Any, prefix: str, kind: type, required: Sequence[str], without: Sequence[str] = ()) -> None:
    _known(entry, prefix, [field.name for field in fields(kind) if field.name not in without], "mapping")
    for name in required:
        if name not in entry:
            raise UserError(f"{prefix}{name} is missing")


def _known(entry: Any, prefix: str, names: Iterable[str], what: str) -> None:
    if not isinstance(entry, dict):
        raise UserError(f"{prefix}{entry!r} is no {what}; known keys: {', '.join(names)}")
    for key in entry:
        if key not in names:
            hint = nearest_name(str(key), names) or f"known: {', '.join(names)}"
            raise UserError(f"{prefix}unknown key {key!r}: {hint}")


def _word(value: Any, prefix: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{prefix}: {value!r} is no text; quote it")
    return " ".join(value.split())


def _words(value: Any, prefix: str) -> tuple[str, ...]:
    return tuple(_word(one, prefix) for one in _list(value, prefix))


def _list(value: Any, prefix: str) -> list:
    if not isinstance(value, list):
        raise UserError(f"{prefix}: give a list")
    return value
