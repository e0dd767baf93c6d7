"""Errors of two runs, linear by linear and block by block: where B gains over A, and where it loses."""

from pathlib import Path

import numpy as np
import pandas as pd

from harness.foundation.text import visible
from harness.records import layout
from harness.records.measurements import read_table
from harness.reporting.cells import Cell, Row, Table

BARS = "▁▂▃▄▅▆▇█"
EXTREMES = 3
ERROR = "Error: tr((W−Q) H (W−Q)ᵀ) / tr(W H Wᵀ). "


def layer_tables(a: Path, b: Path, caution: str = "") -> list[Table]:
    """Tables of layers.parquet and blocks.parquet of two run directories, or one that says why not; `caution`
    goes with every one.
    """
    layers = _read(a / layout.LAYERS, "layer"), _read(b / layout.LAYERS, "layer")
    tables = [_absent("Layers", layers)] if any(one is None for one in layers) else _layers(*layers, caution)
    blocks = _read(a / layout.BLOCKS, "name"), _read(b / layout.BLOCKS, "name")
    if all(one is not None for one in blocks):
        tables += _blocks(*blocks, caution)
    return tables


def _read(path: Path, key: str) -> pd.DataFrame | None:
    """The rows by name, or None where there are none that can be used."""
    table = read_table(path, (key, "error"))
    if table is None:
        return None
    try:
        table["error"] = table["error"].astype(float)
        return table.drop_duplicates(key).set_index(key)
    except (ValueError, TypeError):
        return None


def _absent(title: str, found: tuple[pd.DataFrame | None, pd.DataFrame | None]) -> Table:
    names = " and ".join(name for name, one in zip("AB", found, strict=True) if one is None)
    return Table(
        "comparison", title, "", f"Not compared: {names} kept no layers.parquet that can be read", ("",), ()
    )


def _joined(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """What both have, in the order of A, with finite errors above 0 and their ratio B / A; and what had to be
    left out, in words.
    """
    both = a.join(b[["error"]].rename(columns={"error": "other"}), how="inner")
    usable = both[
        np.isfinite(both["error"]) & np.isfinite(both["other"]) & (both["error"] > 0) & (both["other"] > 0)
    ]
    left_out = [
        f"{count} {what}"
        for count, what in (
            (len(a) - len(both), "only in A"),
            (len(b) - len(both), "only in B"),
            (len(both) - len(usable), "with an error of 0 or none"),
        )
        if count
    ]
    return usable.assign(ratio=usable["other"] / usable["error"]), left_out


def _layers(a: pd.DataFrame, b: pd.DataFrame, caution: str) -> list[Table]:
    both, left_out = _joined(a, b)
    notes = (f"Left out: {', '.join(left_out)}",) if left_out else ()
    if both.empty:
        return [
            Table(
                "comparison",
                "Layers",
                "",
                "Not compared: no linear has an error above 0 in both runs",
                ("",),
                (),
                notes,
            )
        ]
    caption = f"{ERROR}{caution}{_summary(both['ratio'], 'linears')}"
    kinds = [(visible(str(kind)), group) for kind, group in both.groupby("linear", sort=False)]
    rows = [_kind(kind, group) for kind, group in kinds] + ([_kind("all", both)] if len(kinds) > 1 else [])
    lines = [_profile(both)] if both["block"].nunique() > 1 else []
    head = ("kind of linear", "n", "error of A", "error of B", "B / A", "lower in B")
    tables = [Table("comparison", "Layers by kind", "", caption, head, tuple(rows), (*lines, *notes))]
    return tables + ([_extremes(both)] if len(both) > 2 * EXTREMES else [])


def _summary(ratio: pd.Series, what: str) -> str:
    lower = int((ratio < 1).sum())
    same = int((ratio == 1).sum())
    equal = f", the same in {same}" if same else ""
    middle = f"median {ratio.median():.3f}, geometric mean {_mean(ratio):.3f}"
    return f"B has the lower error in {lower} of {len(ratio)} {what}{equal}; ratio B / A: {middle}"


def _kind(name: str, group: pd.DataFrame) -> Row:
    values = (group["error"].mean(), group["other"].mean())
    lower = f"{int((group['ratio'] < 1).sum())} of {len(group)}"
    cells = (str(len(group)), *(f"{value:.3g}" for value in values), f"{_mean(group['ratio']):.3f}", lower)
    return Row(name, "linear" if name != "all" else "", tuple(map(Cell, cells)))


def _extremes(both: pd.DataFrame) -> Table:
    order = both.sort_values("ratio", kind="stable")
    rows = [Row("B gains most", "", ()), *map(_layer, *_pairs(order.head(EXTREMES)))]
    rows += [Row("B loses most, or gains least", "", ()), *map(_layer, *_pairs(order.tail(EXTREMES)[::-1]))]
    head = ("layer", "error of A", "error of B", "B / A")
    return Table(
        "comparison", "Layers that change most", "", "The lowest and the highest ratios", head, tuple(rows)
    )


def _pairs(rows: pd.DataFrame) -> tuple[list[str], list[pd.Series]]:
    return [str(name) for name in rows.index], [row for _, row in rows.iterrows()]


def _layer(name: str, row: pd.Series) -> Row:
    return Row(
        visible(name),
        "layer",
        tuple(Cell(text) for text in (f"{row['error']:.3g}", f"{row['other']:.3g}", f"{row['ratio']:.3f}")),
    )


def _profile(both: pd.DataFrame) -> str:
    """One bar per block: the geometric mean of B / A of its linears."""
    ratios = both.groupby("block")["ratio"].apply(_mean).sort_index()
    blocks = f"{ratios.index[0]} to {ratios.index[-1]}"
    return f"B / A by block, {blocks}: {_bars(ratios)}  (▁ {ratios.min():.3f}, █ {ratios.max():.3f})"


def _bars(ratios: pd.Series) -> str:
    logs = np.log(ratios.to_numpy())
    span = logs.max() - logs.min()
    heights = np.zeros(len(logs)) if span < 1e-12 else (logs - logs.min()) / span
    return "".join(BARS[round(float(height) * (len(BARS) - 1))] for height in heights)


def _blocks(a: pd.DataFrame, b: pd.DataFrame, caution: str) -> list[Table]:
    both, left_out = _joined(a, b)
    if both.empty:
        return []
    caption = (
        f"Error: ‖output − float output‖² / ‖float output‖². {caution}{_summary(both['ratio'], 'blocks')}"
    )
    notes = [_profile(both)] if both["block"].nunique() > 1 else []
    notes += [f"Left out: {', '.join(left_out)}"] if left_out else []
    head = ("block", "error of A", "error of B", "B / A")
    return [
        Table(
            "comparison", "Block outputs", "", caption, head, tuple(map(_layer, *_pairs(both))), tuple(notes)
        )
    ]


def _mean(ratio: pd.Series) -> float:
    return float(np.exp(np.log(ratio).mean()))
