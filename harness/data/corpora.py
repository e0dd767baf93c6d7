"""Texts for calibration and perplexity, and the rule by which each becomes tokens.

Embedded: `wiki` (Wikipedia prose), `news` (Lee corpus). From the hub, or from a mirror directory laid out as
the hub is (`<mirror>/<path>/…`): `wikitext2`, `c4`, `ptb`. Made up: `synthetic`. A text is a list of
documents; what reads it joins them by a blank line and tokenizes the whole once, as GPTQ did.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

from harness.data import assets
from harness.foundation.cache import cache_dir
from harness.foundation.did_you_mean import nearest_name
from harness.foundation.errors import UserError
from harness.foundation.files import write_atomic

SEPARATOR = "\n\n"
WIKI_TEST_SHARE = 0.15  # of the articles


@dataclass(frozen=True)
class HubText:
    """Where a published corpus is, and which of its rows make the stream that papers evaluate on.

    `rows`: how many rows of a split, from its start; all where it says nothing. `joined`: a separator that
    replaces the blank line between test rows, where the protocol asks for it.
    """

    path: str
    name: str | None
    columns: tuple[str, ...]  # the first that is there
    splits: dict[str, str]
    files: dict[str, str] | None = None
    revision: str | None = None
    rows: dict[str, int] | None = None
    joined: str | None = None


ASSETS = ("wiki", "news")  # the embedded ones
HUB = {
    # test rows joined by a blank line: the WikiText-2 perplexity of GPTQ and its successors
    "wikitext2": HubText(
        path="Salesforce/wikitext",
        name="wikitext-2-raw-v1",
        columns=("text",),
        splits={"train": "train", "test": "test"},
    ),
    # "c4-new": the first 1100 validation documents joined by a space; papers use 256 windows of it
    # (eval.windows)
    "c4": HubText(
        path="allenai/c4",
        name=None,
        columns=("text",),
        splits={"train": "train", "test": "validation"},
        files={
            "train": "en/c4-train.00000-of-01024.json.gz",
            "validation": "en/c4-validation.00000-of-00008.json.gz",
        },
        rows={"train": 4096, "test": 1100},
        joined=" ",
    ),
    # the older PTB variant, validation sentences joined by a blank line: what QuantEase's tables show
    "ptb": HubText(
        path="ptb-text-only/ptb_text_only",
        name=None,  # the converted branch has one nameless configuration
        columns=("sentence", "text"),
        splits={"train": "train", "test": "validation"},
        revision="refs/convert/parquet",
    ),
}


def documents(name: str, split: str, mirror: str | None = None) -> list[str]:
    """Documents of corpus `name`; `split` is train or test (of c4 and ptb: the validation split, as papers
    do).

    `mirror` is a directory to read instead of the hub. Raises UserError for an unknown corpus, a missing
    mirror entry or no connection.
    """
    if name not in CORPORA:
        hint = nearest_name(name, CORPORA) or f"there are {', '.join(CORPORA)}"
        raise UserError(f"no corpus is called {name!r}: {hint} (data.name, eval.corpora)")
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r}: must be train or test")
    return list(CORPORA[name](split, mirror))


def text_sha256(documents: Sequence[str]) -> str:
    """Hexadecimal SHA-256 of the documents and of where one ends and the next begins."""
    digest = hashlib.sha256()
    for document in documents:
        content = document.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def analogies() -> list[tuple[str, str, str, str, str]]:
    """Google's analogies as (category, a, b, c, d): a is to b as c is to d."""
    found, category = [], ""
    for line in assets.fetch("analogies").read_text().splitlines():
        if line.startswith(":"):
            category = line[1:].strip()
        else:
            found.append((category, *line.split()))
    return found


def _news(split: str, mirror: str | None) -> list[str]:
    lines = assets.fetch(f"news-{split}").read_text(encoding="latin-1").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _wiki(split: str, mirror: str | None) -> list[str]:
    return [text for title, text in _wiki_articles() if _is_test(title) == (split == "test")]


def _wiki_articles() -> list[tuple[str, str]]:
    from harness.data import wikipedia

    parsed = cache_dir() / "corpora" / f"wiki-{wikipedia.VERSION}.jsonl"
    if not parsed.is_file():
        with assets.status("parsing the Wikipedia sample (once)"):
            found = [(title, text) for title, text in wikipedia.articles(assets.fetch("wiki")) if text]
            write_atomic(parsed, "".join(json.dumps(article, ensure_ascii=False) + "\n" for article in found))
    return [tuple(json.loads(line)) for line in parsed.read_text(encoding="utf-8").split("\n") if line]


def _is_test(title: str) -> bool:
    """The split of an article hangs on its title alone, so another dump or parser cannot move it across."""
    return int(hashlib.sha256(title.encode()).hexdigest()[:8], 16) < WIKI_TEST_SHARE * 2**32


@lru_cache
def _synthetic(split: str, mirror: str | None) -> tuple[str, ...]:
    from harness.data import pseudotext

    everything = tuple(pseudotext.articles(600, seed=0))
    return everything[:500] if split == "train" else everything[500:]


def _hub(name: str, split: str, mirror: str | None) -> list[str]:
    corpus = HUB[name]
    rows = (corpus.rows or {}).get(split)
    knob = "data.mirror" if split == "train" else "eval.mirror"
    if mirror is not None and not Path(mirror, corpus.path).is_dir():
        raise UserError(
            f"{knob}={mirror} has no {corpus.path}: copy the data set {name} there, or unset {knob}"
        )
    try:
        texts = list(islice(_hub_rows(corpus, split, mirror), rows))
    except Exception as error:  # hub, proxy, file format: many types, one remedy
        where = f"mirror {mirror}" if mirror else "hub"
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise UserError(
            f"cannot read {name} ({corpus.path}) from the {where} ({type(error).__name__}: {reason}): "
            f"go online, or set {knob}=<directory> that holds {corpus.path}/"
        ) from error
    return [corpus.joined.join(texts)] if split == "test" and corpus.joined is not None else texts


def _hub_rows(corpus: HubText, split: str, mirror: str | None) -> Iterator[str]:
    with _quiet_datasets() as datasets:
        published = corpus.splits[split]
        rows = datasets.load_dataset(
            str(Path(mirror, corpus.path).absolute()) if mirror else corpus.path,
            corpus.name,
            data_files={published: corpus.files[published]} if corpus.files else None,
            split=published,
            revision=None if mirror else corpus.revision,
        )
        for row in rows:
            yield next(row[column] for column in corpus.columns if column in row)


@contextlib.contextmanager
def _quiet_datasets() -> Iterator:
    import datasets  # slow to import, and only the hub corpora need it

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield datasets
    finally:
        if shown:
            datasets.enable_progress_bars()


CORPORA: dict[str, Callable[[str, str | None], Sequence[str]]] = {
    "wiki": _wiki,
    "news": _news,
    **{name: partial(_hub, name) for name in HUB},
    "synthetic": _synthetic,
}


def is_in_hub_cache(dataset: str) -> bool:
    """Data sets leave their files in the hub's cache, or what became of them in that of `datasets`."""
    from datasets import config as datasets_config
    from huggingface_hub.constants import HF_HUB_CACHE

    places = (
        Path(HF_HUB_CACHE, f"datasets--{dataset.replace('/', '--')}"),
        Path(datasets_config.HF_DATASETS_CACHE, dataset.replace("/", "___")),
    )
    return any(place.is_dir() for place in places)
