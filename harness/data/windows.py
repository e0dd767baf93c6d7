"""Windows of token ids: which ones are calibrated on, and which are evaluated."""

from collections.abc import Sequence

import torch
from torch import LongTensor

from harness.config.groups import Bos
from harness.data.corpora import SEPARATOR
from harness.data.tokens import bare, own_prefix, tokenize, window_prefix
from harness.foundation.errors import UserError

CHARACTERS = 8  # of a token, more than the average of any language
MARGIN = 16  # tokens


def calibration_tokens(
    documents: Sequence[str], tokenizer, samples: int, window: int, seed: int, bos: Bos
) -> LongTensor:
    """Token ids (samples, window): segments of the joined text at random places, with bos=window after a BOS
    each.

    Raises UserError when the text has fewer tokens than are asked for, or the tokenizer has no BOS to put.
    """
    before = _before_windows(tokenizer, bos, "data.window", window)
    text, stream = window - len(before), _stream(documents, tokenizer, bos)
    _refuse_short(len(stream), samples * text, _calibration_key(samples, window), "the corpus")
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(stream) - text + 1, (samples,), generator=generator)
    return _behind(before, stream[starts[:, None] + torch.arange(text)])


def evaluation_windows(
    documents: Sequence[str], tokenizer, window: int, windows: int | None, bos: Bos
) -> LongTensor:
    """Token ids (n, window): the joined text cut into disjoint windows from its start, the incomplete last
    one dropped.

    There are `windows` of them where the text has so many, None for all there are. With bos=window each holds
    a BOS and window - 1 tokens of text. Raises UserError when the text is shorter than one window.
    """
    before = _before_windows(tokenizer, bos, "eval.window", window)
    text, stream = window - len(before), _stream(documents, tokenizer, bos)
    _refuse_short(len(stream), text, _evaluation_key(window), "the corpus")
    available = len(stream) // text
    count = available if windows is None else min(windows, available)
    return _behind(before, stream[: count * text].view(count, text))


def check_calibration(
    corpus: str, documents: Sequence[str], tokenizer, samples: int, window: int, bos: Bos
) -> None:
    """See whether `calibration_tokens` will have enough text, without reading more of it than that takes.

    Raises UserError as it would, naming the corpus.
    """
    needed = samples * (window - len(_before_windows(tokenizer, bos, "data.window", window)))
    found = _tokens_up_to(needed, documents, tokenizer, bos)
    _refuse_short(found, needed, _calibration_key(samples, window), corpus)


def check_evaluation(corpus: str, documents: Sequence[str], tokenizer, window: int, bos: Bos) -> None:
    """The same for `evaluation_windows`."""
    needed = window - len(_before_windows(tokenizer, bos, "eval.window", window))
    found = _tokens_up_to(needed, documents, tokenizer, bos)
    _refuse_short(found, needed, _evaluation_key(window), corpus)


def windows_up_to(count: int, documents: Sequence[str], tokenizer, window: int, bos: Bos) -> int:
    """How many windows a text has, `count` where it has more."""
    text = window - len(_before_windows(tokenizer, bos, "eval.window", window))
    return min(count, _tokens_up_to(count * text, documents, tokenizer, bos) // text)


def _calibration_key(samples: int, window: int) -> tuple[str, str]:
    """Settings that ask for tokens, and what to change."""
    return (
        f"data.samples={samples} of data.window={window} need",
        "lower data.samples or data.window, or choose another data",
    )


def _evaluation_key(window: int) -> tuple[str, str]:
    return f"one window of eval.window={window} needs", "lower eval.window, or choose other eval.corpora"


def _refuse_short(found: int, needed: int, key: tuple[str, str], corpus: str) -> None:
    if found < needed:
        raise UserError(f"{key[0]} {needed} tokens, {corpus} has {found}: {key[1]}")


def _tokens_up_to(count: int, documents: Sequence[str], tokenizer, bos: Bos) -> int:
    """How many tokens a text has, or some number from `count` up where it has more."""
    text = SEPARATOR.join(documents)
    piece = text[: CHARACTERS * (count + MARGIN)]
    found = len(bare(piece, tokenizer)) - MARGIN  # its end may be cut in another place
    return found if found >= count else len(_stream(documents, tokenizer, bos))


def _stream(documents: Sequence[str], tokenizer, bos: Bos) -> LongTensor:
    """The joined text, with bos=stream behind what the tokenizer puts before it."""
    tokens = tokenize(SEPARATOR.join(documents), tokenizer)
    return _behind(own_prefix(tokenizer) if bos is Bos.stream else [], tokens)


def _before_windows(tokenizer, bos: Bos, key: str, window: int) -> list[int]:
    before = window_prefix(tokenizer) if bos is Bos.window else []
    if window < len(before) + 1:
        raise UserError(f"{key}={window}: no room for text behind the {len(before)} tokens of the BOS")
    return before


def _behind(before: list[int], tokens: LongTensor) -> LongTensor:
    """Tokens (..., n) behind the same few."""
    return torch.cat(
        [torch.tensor(before, dtype=tokens.dtype).expand(*tokens.shape[:-1], -1), tokens], dim=-1
    )
