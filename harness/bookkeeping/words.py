"""Runs, durations and sizes in a few words, for terminals and logs."""

import math

from rich.markup import escape

from harness.config.run_config import RunConfig
from harness.records.naming import method_name
from harness.records.record import finite, number
from methods.contracts.scheme import ActRange, OutlierStructure, Scheme, ZeroPoint

GIB = 2**30
# (seconds below which, size, name)
UNITS = (90, 1, "s"), (5400, 60, "min"), (48 * 3600, 3600, "h"), (math.inf, 86400, "days")


def label(config: RunConfig) -> str:
    """A run in a few words, e.g. `smollm2-135m gptq w3 g16 search, 3-bit scales, 1 % outliers` or
    `smollm2-135m rtn w4 a4 minmax`.
    """
    words = [config.model.name, method_name(config.method_config)]
    return " ".join(words if config.method.solver is None else [*words, scheme_label(config.scheme)])


def scheme_label(scheme: Scheme) -> str:
    """A scheme in a few words, without what is switched off."""
    words = [f"w{scheme.bits}"] + ([f"g{scheme.group_size}"] if scheme.group_size else [])
    words += [f"a{scheme.act_bits}"] if scheme.act_bits else []
    words += [f"kv{scheme.kv_bits}"] if scheme.kv_bits else []
    words += [scheme.range.name] + (["float zero"] if scheme.zero_point is ZeroPoint.float else [])
    words += ["symmetric"] if scheme.symmetric else []
    extras = [f"{scheme.scale_bits}-bit scales"] if scheme.scale_bits else []
    if scheme.outlier_ratio:
        whole = " in whole columns" if scheme.outlier_structure is OutlierStructure.column else ""
        extras.append(f"{100 * scheme.outlier_ratio:g} % outliers{whole}")
    if scheme.quantizes_activations:
        ways = ["static"] if scheme.act_range is ActRange.tensor else []
        ways += ["symmetric"] if scheme.act_symmetric else []
        extras += [f"{' '.join(ways)} activations"] if ways else []
    return ", ".join([" ".join(words), *extras])


def outcome(config: RunConfig, record: dict) -> str:
    """One line that says how a run ended."""
    if record["status"] != "done":
        return f"[red]{record['status']}[/] {escape(label(config))}: {escape(str(record['reason']))}"
    told = [
        f"{escape(name.removeprefix('perplexity/'))} {_digits(metric['value'])}"
        for name, metric in record["metrics"].items()
    ]
    if record["layer_error"]:
        told.append(f"layer error {_digits(record['layer_error']['mean'])}")
    if share := finite(record["outlier_share"]):
        told.append(f"{100 * share:.3g} % outliers stored")
    if (seconds := finite(record["seconds"]["total"])) is not None:
        told.append(f"{seconds:.0f} s")
    return f"[green]done[/] {escape(label(config))}: {', '.join(told)}"


def _digits(value: object) -> str:
    """A number of a record in four digits; "?" for what is none."""
    known = number(value)
    return "?" if known is None else f"{known:.4g}"


def told_seconds(seconds: float | None, exact: bool = False) -> str:
    """`~4 min`, `~25 s`, `~2 days`: as precise as an estimate is; `exact` is for what was measured."""
    if seconds is None:
        return "?"
    size, unit = next(unit for until, *unit in UNITS if seconds < until)
    value = seconds / size
    if exact:
        return f"{value:.{1 if value < 10 else 0}f} {unit}"
    return f"~{max(1, round(value)) if value < 10 else 5 * round(value / 5)} {unit}"


def told_bytes(count: int) -> str:
    """In GiB, or in MiB below one."""
    if count < GIB:
        return f"{count / 2**20:.0f} MiB"
    return f"{count / GIB:.{1 if count < 10 * GIB else 0}f} GiB"
