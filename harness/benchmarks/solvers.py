"""Every solver on the same real layers: error in float64, true bits, median seconds, peak memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from harness.benchmarks.layers import Layer, method_named
from harness.benchmarks.measure import failure, peak_extra_bytes, timed
from harness.reporting.cells import NOT_RUN, SUPERSCRIPT
from methods.contracts.problem import LayerProblem
from methods.contracts.scheme import Scheme
from methods.solving.linalg import layer_error
from methods.weights.bits_per_weight import bits_per_weight


@dataclass(frozen=True)
class Result:
    """One solver on one layer under one scheme; without numbers where the solver refuses the scheme or
    failed.
    """

    layer: str
    shape: str
    scheme: str
    bits: int
    group_size: int | None
    range: str
    outlier_ratio: float
    method: str
    error: float | None = None  # tr((W-Q) H (W-Q)^T) / tr(W H W^T)
    true_bits: float | None = None  # stored bits per weight
    outliers: float | None = None  # share of the entries in float16
    seconds: float | None = None  # median
    peak_bytes: int | None = None  # above what was there before the solver started
    peak_multiple: float | None = None  # the same, of the bytes of weight and Hessian
    fallbacks: str = ""
    reason: str = ""  # why there are no numbers


@dataclass(frozen=True)
class Work:
    """What to measure."""

    layers: Sequence[Layer]
    schemes: Sequence[tuple[str, Scheme]]
    outliers: Sequence[float]
    methods: Sequence[str]
    device: str
    repeats: int

    def __len__(self) -> int:
        return len(self.layers) * len(self.schemes) * len(self.outliers) * len(self.methods)


def measure(work: Work, on_start: Callable[[str], None] = lambda what: None) -> Iterator[Result]:
    """Results in the order of the table: scheme, outlier ratio, method, layer."""
    layers = [layer.to(work.device) for layer in work.layers]
    for scheme_name, plain in work.schemes:
        for ratio in work.outliers:
            scheme = replace(plain, outlier_ratio=ratio)
            for method in work.methods:
                for layer in layers:
                    outliers = f" {100 * ratio:g} % outliers" if ratio else ""
                    on_start(f"{method} {scheme_name}{outliers} {layer.title}")
                    yield solve(layer, scheme_name, scheme, method, work)


def solve(layer: Layer, scheme_name: str, scheme: Scheme, method: str, work: Work) -> Result:
    """Measure one cell: a solve of a corner that may compile kernels, one whose memory is watched, then the
    timed ones.

    A solver that fails costs its cell alone.
    """
    solver = method_named(method).solver
    shape = "x".join(map(str, layer.weight.shape))
    named = scheme.bits, scheme.group_size, scheme.range.name, scheme.outlier_ratio, method
    blank = Result(layer.name, shape, scheme_name, *named)
    reason = solver.skip_reason(scheme) or _misfit(layer, scheme)
    if reason:
        return replace(blank, reason=reason)
    problem = LayerProblem(layer.weight, layer.hessian, scheme)
    try:
        solver.solve(corner(layer, scheme))
        extra = peak_extra_bytes(lambda: solver.solve(problem), work.device)
        seconds, solution = timed(lambda: solver.solve(problem), work.repeats, work.device)
    except Exception as error:
        return replace(blank, reason=failure(error))
    return replace(
        blank,
        error=layer_error(layer.weight, solution.weight.dequantize(), layer.hessian),
        true_bits=bits_per_weight(solution.weight.tensors(), layer.weight.numel()),
        outliers=float(solution.stats.get("outliers", 0.0)),
        seconds=seconds,
        peak_bytes=extra,
        peak_multiple=None if extra is None else extra / layer.nbytes,
        fallbacks="; ".join(solution.fallbacks),
    )


def corner(layer: Layer, scheme: Scheme, size: int = 256) -> LayerProblem:
    """The first rows and columns of a layer, whole groups of them."""
    columns = size - size % (scheme.group_size or 1) or layer.weight.shape[1]
    return LayerProblem(
        layer.weight[:size, :columns].contiguous(), layer.hessian[:columns, :columns].contiguous(), scheme
    )


def _misfit(layer: Layer, scheme: Scheme) -> str | None:
    width, size = layer.weight.shape[1], scheme.group_size
    return (
        f"groups of {size} do not divide the width {width} of {layer.name}" if size and width % size else None
    )


def table(results: Sequence[Result], title: str) -> tuple[Table, list[str]]:
    """The table, and its footnotes; bold is the least error of a layer under one scheme and outlier ratio."""
    layers = list(dict.fromkeys((result.layer, result.shape) for result in results))
    view = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for head in (
        "scheme",
        "method",
        "true bits",
        *(f"{name}\n{shape}" for name, shape in layers),
        "seconds",
        "memory",
    ):
        view.add_column(head, justify="left" if head in ("scheme", "method") else "right", no_wrap=True)
    notes: dict[str, str] = {}
    best = {}
    for result in results:
        if result.error is not None:
            key = result.scheme, result.outlier_ratio, result.layer
            best[key] = min(best.get(key, result.error), result.error)
    group = None
    for (scheme, ratio, method), cells in _rows(results).items():
        if group is not None and group != (scheme, ratio):
            view.add_section()
        heading = f"{scheme} + {100 * ratio:g} %" if ratio else scheme
        cells_by_layer = {cell.layer: cell for cell in cells}
        errors = [_error(cells_by_layer.get(name), best, notes) for name, _ in layers]
        view.add_row("" if group == (scheme, ratio) else heading, method, *_summary(cells, errors))
        group = scheme, ratio
    lines = [f"{mark} {text}" for text, mark in notes.items()]
    return view, [
        *lines,
        "true bits: mean over layers; seconds: sum of the medians; "
        "memory: the most above W and H, as a multiple of W + H",
    ]


def _rows(results: Sequence[Result]) -> dict[tuple, list[Result]]:
    rows: dict[tuple, list[Result]] = {}
    for result in results:
        rows.setdefault((result.scheme, result.outlier_ratio, result.method), []).append(result)
    return rows


def _error(result: Result | None, best: dict, notes: dict[str, str]) -> Text:
    if result is None:
        return Text(NOT_RUN)
    if result.error is None:
        return Text(NOT_RUN + notes.setdefault(result.reason, str(len(notes) + 1).translate(SUPERSCRIPT)))
    leads = result.error == best[result.scheme, result.outlier_ratio, result.layer]
    mark = (
        notes.setdefault(result.fallbacks, str(len(notes) + 1).translate(SUPERSCRIPT))
        if result.fallbacks
        else ""
    )
    return Text(f"{result.error:.5f}{mark}", "bold" if leads else "")


def _summary(cells: Sequence[Result], errors: list[Text]) -> list[Text | str]:
    """Bits, the errors, seconds and memory of one row."""
    solved = [cell for cell in cells if cell.error is not None]
    if not solved:
        return [NOT_RUN, *errors, NOT_RUN, NOT_RUN]
    multiples = [cell.peak_multiple for cell in solved if cell.peak_multiple is not None]
    bits = sum(cell.true_bits for cell in solved) / len(solved)
    return [
        f"{bits:.2f}",
        *errors,
        f"{sum(cell.seconds for cell in solved):.2f}",
        f"{max(multiples):.2f}" if multiples else NOT_RUN,
    ]
