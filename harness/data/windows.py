"""Windows of token ids: which ones are calibrated on, and which are evaluated."""

from collections.abc import Sequence

import torch
from torch import LongTensor

from harness.config.groups import Bos
from harness.data.corpora import SEPARATOR
from harness.data.tokens import tokenize
from harness.foundation.errors import UserError


def calibration_tokens(
    documents: Sequence[str], tokenizer, samples: int, window: int, seed: int, bos: Bos
) -> LongTensor:
    """Token ids (samples, window): segments of the joined text at random places, with bos=window after a BOS
    each.

    Raises UserError when the text has fewer tokens than are asked for, or the tokenizer has no BOS to put.
    """
    text = window - 1 if bos is Bos.window else window
    stream = _stream(documents, tokenizer, bos)
    if len(stream) < samples * text:
        raise UserError(
            f"data.samples={samples} of data.window={window} need {samples * text} tokens, the corpus has "
            f"{len(stream)}: lower data.samples or data.window, or choose another data"
        )
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(stream) - text + 1, (samples,), generator=generator)
    return _with_bos(stream[starts[:, None] + torch.arange(text)], tokenizer, bos)


def evaluation_windows(
    documents: Sequence[str], tokenizer, window: int, windows: int | None, bos: Bos
) -> LongTensor:
    """Token ids (n, window): the joined text cut into disjoint windows from its start, the incomplete last
    one dropped.

    `windows` is n, None for all there are. With bos=window each holds a BOS and window - 1 tokens of text.
    Raises UserError when the text has fewer windows.
    """
    text = window - 1 if bos is Bos.window else window
    stream = _stream(documents, tokenizer, bos)
    available = len(stream) // text
    count = available if windows is None else windows
    if available < max(count, 1):
        raise UserError(
            f"eval.windows={'all' if windows is None else windows} of eval.window={window}: the corpus has "
            f"{len(stream)} tokens, enough for {available}; lower eval.windows or eval.window, or choose "
            "other eval.corpora"
        )
    return _with_bos(stream[: count * text].view(count, text), tokenizer, bos)


def _stream(documents: Sequence[str], tokenizer, bos: Bos) -> LongTensor:
    return tokenize(SEPARATOR.join(documents), tokenizer, specials=bos is Bos.stream)


def _with_bos(tokens: LongTensor, tokenizer, bos: Bos) -> LongTensor:
    if bos is not Bos.window:
        return tokens
    if tokenizer.bos_token_id is None:
        raise UserError(
            "model.bos=window, but this tokenizer has no BOS token: use model.bos=stream or model.bos=none"
        )
    return torch.nn.functional.pad(tokens, (1, 0), value=tokenizer.bos_token_id)
