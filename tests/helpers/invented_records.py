"""Invented records for tests of the report, and an independent reader of the Markdown it writes."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

WIKI = "wiki/test, 16 windows of 512 tokens, disjoint, bos=stream, float32, 8176 tokens scored"
TASK = "lm-eval 0.4.13, analogies v1, 0-shot, 100 items, seed 0"
QUANTIZED_ONLY = ("bits_per_weight", "layer_error", "data", "scheme")


def metric(value, stderr=None, protocol=WIKI) -> dict:
    return {"value": value, "stderr": stderr, "protocol": protocol, "n": 8176}


def record(key: str, method: str = "rtn", bits: int | None = 3, perplexity=None, **changes) -> dict:
    """One record; `changes` are dotted paths, with __ for the dot (scheme__range="minmax")."""
    found = {
        "schema": 1,
        "run_key": key,
        "status": "done",
        "reason": None,
        "family": "llama",
        "model": {"name": "toy", "id": "tiny:llama", "revision": None, "dtype": "float32", "bos": "stream", "source_bits": None,  # noqa: E501
                  "fingerprint": "sha256:" + "3f" * 32},
        "data": {"name": "wiki", "samples": 32, "window": 512, "batch_size": 8, "propagate": "float", "true_sequential": True},  # noqa: E501
        "scheme": {"bits": bits, "group_size": None, "symmetric": False, "zero_point": "integer", "range": "search"},  # noqa: E501
        "method": {"name": method, "transform": None, "solver": {"_target_": f"methods.{method}.{method.upper()}"}},  # noqa: E501
        "eval": {"name": "quick", "corpora": ["wiki"], "window": 512, "windows": 16, "tasks": ["analogies"], "limit": 100, "batch_size": 8},  # noqa: E501
        "seed": 0,
        "metrics": {} if perplexity is None else {"perplexity/wiki": metric(perplexity)},
        "baseline": None,
        "bits_per_weight": bits and bits + 0.03,
        "outlier_share": 0.0,
        "layer_error": {"mean": 0.0123, "max": 0.2},
        "seconds": {"load": 1.0, "quantize": 3.21, "evaluate": 4.0, "total": 10.04},
        "peak_memory_bytes": {"cpu": 3 * 2**30, "gpu": 0},
        "versions": {"ptq_bench": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
        "fallbacks": [],
    }  # fmt: skip
    if method == "float":
        found |= dict.fromkeys(QUANTIZED_ONLY) | {
            "method": {"name": "float", "transform": None, "solver": None}
        }
    for path, value in changes.items():
        *groups, last = path.split("__")
        place = found
        for group in groups:
            place = place[group]
        place[last] = value
    return found


def ended(key: str, status: str, reason: str | None, method: str = "rtn", bits: int = 3, **changes) -> dict:
    """A record of a run that gave no numbers: it has no key for any result."""
    found = record(key, method, bits, **changes) | {"status": status, "reason": reason}
    for name in (
        "metrics",
        "baseline",
        "bits_per_weight",
        "layer_error",
        "seconds",
        "peak_memory_bytes",
        "fallbacks",
        "outlier_share",
    ):
        del found[name]
    return found


def store(results: Path, *records: dict, prefix: str = "") -> Path:
    """Each record in a directory of its own, which may hold other files already."""
    for entry in records:
        directory = results / "runs" / f"{prefix}{entry['run_key']}"
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "record.json").open("x", encoding="utf-8") as file:
            json.dump(entry, file)
    return results


def keep_items(results: Path, place: str, items: Mapping[str, Iterable[float]]) -> None:
    """What a run measured item by item, beside its record."""
    directory = results / "runs" / place
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "items.json").write_text(
        json.dumps({name: list(map(float, values)) for name, values in items.items()})
    )


@dataclass
class Parsed:
    """A table as a reader of the rendered Markdown sees it."""

    model: str
    title: str
    caption: str
    head: list[str]
    rows: dict[str, list[str]]  # label -> cells
    bold: set[tuple[str, str]]  # (label, head of the column)
    notes: list[str]

    def cell(self, label: str, column: str) -> str:
        return self.rows[label][self.head.index(column) - 1]


def markdown_tokens(markdown: str) -> list:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)


def parse(markdown: str, chapter: str = "All numbers") -> list[Parsed]:
    """The tables of one chapter of a report."""
    tables, tokens, headings = [], markdown_tokens(markdown), {}
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            headings = {tag: said for tag, said in headings.items() if tag < token.tag} | {
                token.tag: text(tokens[place + 1])
            }
            last = place
        elif headings.get("h2") != chapter:
            continue
        elif token.type == "table_open":
            # its title is the heading above it, its model the heading above that
            above = list(headings.values())
            caption = text(tokens[last + 4]) if tokens[last + 3].type == "paragraph_open" else ""
            tables.append(Parsed(above[-2], above[-1], caption, [], {}, set(), []))
        elif token.type == "th_open":
            tables[-1].head.append(text(tokens[place + 1]))
        elif token.type == "tr_open" and tokens[place + 1].type == "td_open":
            inline = [
                entry
                for entry in tokens[place : place + 3 * len(tables[-1].head) + 1]
                if entry.type == "inline"
            ]
            label, *cells = map(text, inline)
            assert label not in tables[-1].rows or tables[-1].title.startswith("Size"), (
                f"two rows are called {label}"
            )
            tables[-1].rows[label if label not in tables[-1].rows else f"{label} {cells[0]}"] = cells
            strong = [any(child.type == "strong_open" for child in entry.children) for entry in inline]
            tables[-1].bold |= {
                (label, head) for head, is_strong in zip(tables[-1].head, strong, strict=True) if is_strong
            }
        elif token.type == "list_item_open" and tables:
            tables[-1].notes.append(text(tokens[place + 2]))
    return tables


def headings_of(markdown: str, level: int) -> list[str]:
    """The headings of this level, as they read."""
    tokens = markdown_tokens(markdown)
    return [
        text(tokens[place + 1])
        for place, token in enumerate(tokens)
        if token.type == "heading_open" and token.tag == f"h{level}"
    ]


def text(inline) -> str:
    return "".join(" " if child.type == "softbreak" else child.content for child in inline.children)
