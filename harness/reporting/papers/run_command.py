"""The command that would fill a cell: on the model of the records beside it, under the settings that these
share.
"""

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from harness.records.naming import PLUS
from harness.reporting.keys import ColumnKey
from harness.reporting.labels import FLOAT, present
from harness.reporting.papers.specs import Where

GROUPS = ("model.", "scheme.", "data.", "eval.")
PRESET = ("scheme.bits", "scheme.group_size", "scheme.act_bits")  # what the name of a preset says
PLAIN = re.compile(r"[\w./:+-]+")  # what an override may hold without quotes of its own
UNSAID = ("name", "id", "mirror")  # said by the choice of the group; and where a machine keeps its data sets


def shared_settings(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of model, scheme, calibration and evaluation on which all records agree that have them."""
    settings: dict[str, Any] = {}
    for name in (name for name in records[0] if name.startswith(GROUPS)):
        values = [record[name] for record in records if present(record[name]) or record[name] is None]
        if values and all(value == values[0] for value in values):
            settings[name] = values[0]
    return settings


def command(settings: Mapping[str, Any], methods: Sequence[str], wheres: Sequence[Where]) -> str:
    """`ptq-bench run` for these methods and conditions, so that what it measures may stand beside what has
    these `shared_settings`.
    """
    model = _model(settings)
    if all(PLUS not in method for method in methods):
        names = [["method=" + ",".join(methods)]]
    else:
        names = [
            [f"method={transform}", f"method/solver={solver}"]
            for transform, _, solver in (m.partition(PLUS) for m in methods)
        ]
    said = [_scheme(where) for where in wheres]
    schemes = list(dict.fromkeys(scheme for scheme, _ in said if scheme))
    values: dict[str, dict[str, None]] = {}
    for key, value in ((key, value) for _, rest in said for key, value in rest):
        values.setdefault(key, {})[str(value)] = None
    rest = [f"scheme={','.join(schemes)}"] if schemes else []
    rest += [f"{key}={','.join(found)}" for key, found in values.items()]
    if list(methods) != [FLOAT]:  # which has neither a scheme nor a calibration
        meant = {*PRESET, *(name for where in wheres for name in where)}
        rest += [text for scheme in schemes[:1] for text in _beyond(settings, "scheme", scheme, meant)]
        rest += _chosen(settings, "data")
    rest += _chosen(settings, "eval")
    return " or ".join(shlex.join(["ptq-bench", "run", *model, *name, *rest]) for name in names)


def _model(settings: Mapping[str, Any]) -> list[str]:
    name, origin = str(settings.get("model.name")), str(settings.get("model.id"))
    if origin.startswith(("asset:", "tiny:")):
        return [f"model={name}", *_beyond(settings, "model", name)]
    return ["model=hub", f"model.id={origin}", *_beyond(settings, "model", "hub")]


def _scheme(where: Where) -> tuple[str, list[tuple[str, Any]]]:
    """(the name of a scheme in conf/scheme or "", the overrides that say the rest)."""
    plain = {name: wanted[0] if isinstance(wanted, list) else wanted for name, wanted in where.items()}
    bits, group, act = map(plain.get, PRESET)
    name = ColumnKey(bits, group, act=act).preset
    said = PRESET if (files("conf.scheme") / f"{name}.yaml").is_file() else ()
    rest = [(key, value) for key, value in plain.items() if key not in said and present(value) and value]
    return (name if said else "", rest)


def is_scheme(where: Where) -> bool:
    """Whether a name of conf/scheme says all of these conditions."""
    name, rest = _scheme(where)
    return bool(name) and not rest


def _chosen(settings: Mapping[str, Any], group: str) -> Iterator[str]:
    """The option of this group, unless it is the default one, and what was set otherwise than it says."""
    option = settings.get(f"{group}.name")
    if isinstance(option, str) and _options(group, option):
        if {group: option} not in _defaults():
            yield f"{group}={option}"
        yield from _beyond(settings, group, option)


def _beyond(
    settings: Mapping[str, Any], group: str, option: str, meant: Collection[str] = ()
) -> Iterator[str]:
    """Overrides for what is set otherwise than in conf/group/option.yaml, those `meant` aside."""
    for name, default in _options(group, option).items():
        key = f"{group}.{name}"
        if name in UNSAID or key in meant:
            continue
        if isinstance(default, dict):
            yield from _of_corpora(settings, key, default)
            continue
        if key not in settings:
            continue
        value = _text(settings[key])
        if value not in (_text(default), None):
            yield f"{key}={value}"


def _of_corpora(settings: Mapping[str, Any], key: str, default: Mapping[str, Any]) -> Iterator[str]:
    """Overrides of a setting that is one value, or one for each corpus, where the option has the latter."""
    asked = [corpus for corpus in settings.get("eval.corpora") or default if corpus in default]
    if key in settings:
        if any(settings[key] != default[corpus] for corpus in asked):
            yield f"{key}={_text(settings[key])}"
        return
    for corpus in asked:
        if settings.get(f"{key}.{corpus}", default[corpus]) != default[corpus]:
            yield f"{key}.{corpus}={_text(settings[f'{key}.{corpus}'])}"


def _text(value: Any) -> str | None:
    """A value as an override says it; None where it cannot be said without quotes."""
    if isinstance(value, list | tuple):
        texts = [_text(one) for one in value]
        return None if None in texts else f"[{','.join(texts)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"{value:.12g}"
    return value if isinstance(value, str) and PLAIN.fullmatch(value) else None


@cache
def _options(group: str, option: str) -> dict[str, Any]:
    """What conf/group/option.yaml says; nothing where there is no such option."""
    file = files("conf") / group / f"{option}.yaml"
    return (
        yaml.safe_load(file.read_text(encoding="utf-8"))
        if PLAIN.fullmatch(option) and "/" not in option and file.is_file()
        else {}
    )


@cache
def _defaults() -> list[dict[str, str]]:
    """The defaults list of a run."""
    return yaml.safe_load((files("conf") / "config.yaml").read_text(encoding="utf-8"))["defaults"]
