"""What a person sees while a run goes on: one live line on a terminal, one plain line per finished run anywhere."""

from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.config import RunConfig
from harness.naming import method_name
from methods.core.scheme import ActRange, OutlierStructure, Scheme, ZeroPoint

console = Console(stderr=True, highlight=False, soft_wrap=True)


def label(config: RunConfig) -> str:
    """A run in a few words, e.g. `smollm2-135m gptq w3 g16 search, 3-bit scales, 1 % outliers` or `smollm2-135m rtn w4 a4 minmax`."""
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


class Stages:
    """The stages of one run as successive bars."""

    def __init__(self, progress: Progress, prefix: str):
        self._progress, self._prefix = progress, prefix
        self._task = progress.add_task(prefix, total=None, note="")
        self._stage = None

    def update(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total` steps of a stage; a new stage name restarts the bar and its clock."""
        if stage != self._stage:
            self._stage = stage
            self._progress.reset(self._task, total=total, description=f"{self._prefix} · {stage}", note="")
        self._progress.update(self._task, completed=done, total=total, note=note)


@contextmanager
def stages(prefix: str):
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Stages(progress, prefix)


def outcome(config: RunConfig, record: dict) -> str:
    """One line that says how a run ended."""
    if record["status"] != "done":
        return f"[red]{record['status']}[/] {label(config)}: {record['reason']}"
    metrics = ", ".join(f"{name.removeprefix('perplexity/')} {metric['value']:.4g}" for name, metric in record["metrics"].items())
    error = f", layer error {record['layer_error']['mean']:.4g}" if record["layer_error"] else ""
    share = f", {100 * record['outlier_share']:.3g} % outliers stored" if record["outlier_share"] else ""
    return f"[green]done[/] {label(config)}: {metrics}{error}{share}, {record['seconds']['total']:.0f} s"
