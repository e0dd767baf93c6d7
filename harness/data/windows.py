"""Windows of token ids: which ones are calibrated on, and which are evaluated."""

from collections.abc import Sequence

import torch
from torch import LongTensor

from harness.config.groups import Bos
from harness.data.corpora import SEPARATOR
from harness.data.tokens import own_prefix, tokenize, window_prefix
from harness.foundation.errors import UserError


def calibration_tokens(
    documents: Sequence[str], tokenizer, samples: int, window: int, seed: int, bos: Bos
) -> LongTensor:
    """Token ids (samples, window): segments of the joined text at random places, with bos=window after a BOS
    each.

    Raises UserError when the text has fewer tokens than are asked for, or the tokenizer has no BOS to put.
    """
    before = _before_windows(tokenizer, bos, "data.window", window)
    text, stream = window - len(before), _stream(documents, tokenizer, bos)
    if len(stream) < samples * text:
        raise UserError(
            f"data.samples={samples} of data.window={window} need {samples * text} tokens, the corpus has "
            f"{len(stream)}: lower data.samples or data.window, or choose another data"
        )
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(stream) - text + 1, (samples,), generator=generator)
    return _behind(before, stream[starts[:, None] + torch.arange(text)])


def evaluation_windows(
    documents: Sequence[str], tokenizer, window: int, windows: int | None, bos: Bos
) -> LongTensor:
    """Token ids (n, window): the joined text cut into disjoint windows from its start, the incomplete last
    one dropped.

    `windows` is n, None for all there are. With bos=window each holds a BOS and window - 1 tokens of text.
    Raises UserError when the text has fewer windows.
    """
    before = _before_windows(tokenizer, bos, "eval.window", window)
    text, stream = window - len(before), _stream(documents, tokenizer, bos)
    available = len(stream) // text
    count = available if windows is None else windows
    if available < max(count, 1):
        raise UserError(
            f"eval.windows={'all' if windows is None else windows} of eval.window={window}: the corpus has "
            f"{len(stream)} tokens, enough for {available}; lower eval.windows or eval.window, or choose "
            "other eval.corpora"
        )
    return _behind(before, stream[: count * text].view(count, text))


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
