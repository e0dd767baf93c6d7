"""The protocol of a metric: all that its number depends on besides the model.

A record says it as a sentence, which is what tables show and compare, and in fields. Records of former
versions have the sentence alone; it is taken apart here and nowhere else.
"""

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Self


@dataclass(frozen=True)
class Protocol:
    """One of the kinds below; its sentence is `str(protocol)`."""

    def phrases(self) -> tuple[str, ...]:
        """The sentence in its parts, each of which says one thing."""
        raise NotImplementedError

    def without_counts(self) -> Self:
        """The same without what the tokenizer decides where whole texts are read."""
        return self

    def __str__(self) -> str:
        return ", ".join(self.phrases())


@dataclass(frozen=True)
class PerplexityProtocol(Protocol):
    """Of a perplexity. The hash tells a mirror's or another release's text apart."""

    corpus: str
    windows: int | None  # None, like `scored`: not said
    window: int  # tokens
    bos: str
    dtype: str  # of the model
    scored: int | None  # tokens
    text: str | None  # the first digits of its SHA-256; the first records lack it
    stride: str = "disjoint"

    def phrases(self) -> tuple[str, ...]:
        windows, scored = (("" if count is None else f"{count} ") for count in (self.windows, self.scored))
        return (
            *(f"{self.corpus}/test", f"{windows}windows of {self.window} tokens", self.stride),
            *(f"bos={self.bos}", self.dtype, f"{scored}tokens scored"),
            *([f"text {self.text}"] if self.text else []),
        )

    def without_counts(self) -> Self:
        return replace(self, windows=None, scored=None)


@dataclass(frozen=True)
class TaskProtocol(Protocol):
    """Of a zero-shot task. The hash is of the very texts asked."""

    lm_eval: str  # its version
    task: str
    version: str  # of the task
    asked: int | None  # items, which a seed chooses; both are None where all are asked
    available: int
    seed: int | None
    bos: str
    dtype: str  # of the model
    text: str  # the first digits of its SHA-256
    truncated: int | None = None  # requests that lost their beginning, being longer than
    max_length: int | None = None  # tokens

    def phrases(self) -> tuple[str, ...]:
        some = (f"{self.asked} of {self.available} items", f"seed {self.seed}")
        return (
            *(f"lm-eval {self.lm_eval}", f"{self.task} v{self.version}", "0-shot"),
            *(some if self.asked is not None else [f"all {self.available} items"]),
            *(f"bos={self.bos}", self.dtype, f"text {self.text}"),
            *([f"{self.truncated} requests cut to {self.max_length} tokens"] if self.truncated else []),
        )


@dataclass(frozen=True)
class OtherProtocol(Protocol):
    """A sentence that no version of this program wrote."""

    sentence: str

    def phrases(self) -> tuple[str, ...]:
        return tuple(self.sentence.split(", "))


_PERPLEXITY = re.compile(
    r"(?P<corpus>[^/]*)/test, ((?P<windows>\d+) )?windows of (?P<window>\d+) tokens, (?P<stride>\w+), "
    r"bos=(?P<bos>\w+), (?P<dtype>\w+), ((?P<scored>\d+) )?tokens scored(, text (?P<text>\w+))?"
)
_TASK = re.compile(
    r"lm-eval (?P<lm_eval>[^,]+), (?P<task>\S+) v(?P<version>[^,]+), 0-shot, "
    r"(all|(?P<asked>\d+) of) (?P<available>\d+) items(, seed (?P<seed>-?\d+))?, bos=(?P<bos>\w+), "
    r"(?P<dtype>\w+), text (?P<text>\w+)(, (?P<truncated>\d+) requests cut to (?P<max_length>\d+) tokens)?"
)
_COUNTS = ("windows", "window", "scored", "asked", "available", "seed", "truncated", "max_length")


@cache
def parse(sentence: str) -> Protocol:
    """The protocol whose sentence this is: `str(parse(sentence)) == sentence`."""
    for kind, pattern in ((PerplexityProtocol, _PERPLEXITY), (TaskProtocol, _TASK)):
        if match := pattern.fullmatch(sentence):
            fields = match.groupdict()
            protocol = kind(**fields | {name: int(fields[name]) for name in _COUNTS if fields.get(name)})
            return protocol if str(protocol) == sentence else OtherProtocol(sentence)  # "016 windows"
    return OtherProtocol(sentence)
