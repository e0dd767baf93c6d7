"""Two zero-shot tasks whose items come from embedded texts, so that they need no hub.

`analogies`: which of four words completes "Athens is to Greece as Baghdad is to"? Every pair of Google's
analogies is asked for once, so that the items are independent; the wrong answers belong to other pairs of the
same category.

`news_cloze`: the next word of a news article, LAMBADA style: greedy decoding must give the whole word. As in
most of LAMBADA, the word stands somewhere in the passage before. Passages are beginnings of test articles
(never of those a run may calibrate on), and the passages of one article are scored in one forward pass.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from harness.data import corpora

CHOICES = 4
CONTEXT_WORDS = 20  # a passage of the cloze task has at least so many
WORD = re.compile(r"([A-Za-z]{4,})[.,;:!?]*")  # what the cloze task may ask for


@dataclass(frozen=True)
class EmbeddedTask:
    """A task in lm-eval's terms.

    `kind` is its output_type; `context`, `target` and `choices` name columns of an item; items with the same
    value in the column `group` are sampled together, because scoring them together costs less.
    """

    items: Callable[[], list[dict]]
    version: int  # counts changes that move scores
    kind: str
    context: str
    target: str
    asset: str  # the embedded text that the items come from
    choices: str | None = None
    group: str | None = None


def rank(*parts: object) -> bytes:
    """A key that sorts things in an order that looks random and is the same everywhere and always."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()


def analogies() -> list[dict]:
    """Items {question, choices, answer (index)}, one for every pair (c, d)."""
    examples, pools = defaultdict(list), defaultdict(set)
    for category, a, b, c, d in corpora.analogies():
        examples[c, d].append((category, a, b))
        pools[category].add(d)
    return [
        _analogy(*min(found, key=lambda example: rank(*example, *pair)), *pair, pools)
        for pair, found in examples.items()
    ]


def _analogy(category: str, a: str, b: str, c: str, d: str, pools: dict[str, set[str]]) -> dict:
    wrong = sorted(pools[category] - {b, d}, key=lambda word: rank(a, b, c, d, word))[: CHOICES - 1]
    choices = sorted([d, *wrong], key=lambda word: rank("order", a, b, c, d, word))
    return {"question": f"{a} is to {b} as {c} is to", "choices": choices, "answer": choices.index(d)}


def news_cloze() -> list[dict]:
    """Items {passage, word (with the blank before it), article (index)}."""
    items = []
    for article, text in enumerate(corpora.documents("news", "test")):
        words = text.split()
        seen = [re.sub(r"\W", "", word).lower() for word in words]
        for position in range(CONTEXT_WORDS, len(words)):
            match = WORD.fullmatch(words[position])
            if match and match[1].lower() in seen[:position]:
                items.append(
                    {"passage": " ".join(words[:position]), "word": f" {match[1]}", "article": article}
                )
    return items


EMBEDDED = {
    "analogies": EmbeddedTask(
        analogies, 1, "multiple_choice", "question", "answer", asset="analogies", choices="choices"
    ),
    "news_cloze": EmbeddedTask(
        news_cloze, 1, "loglikelihood", "passage", "word", asset="news", group="article"
    ),
}
