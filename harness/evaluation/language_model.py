"""The language model that lm-eval talks to: log-likelihoods from a model in memory, and nothing done to it.

lm-eval's own wrapper ties the embeddings again, may add a padding token to the tokenizer, and keeps the
logits of every position. Here the model and the tokenizer are only read, and a request whose input is the
beginning of another's costs nothing: both are read off the same forward pass. Scores equal the wrapper's up
to rounding, except where the wrapper's are wrong: where a token reaches across the end of the context (and
part of the answer would be scored as nothing), behind an EOS that the tokenizer puts after every text, and
where cutting a long request takes away the BOS that stands before every window.
"""

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from torch import Tensor, nn

from harness.config.groups import Bos
from harness.data.tokens import bare, behind, prefix
from harness.evaluation.perplexity import LOGITS_AT_ONCE
from harness.evaluation.subject import OnBatch
from harness.foundation.errors import UserError

ANCHORS = (".", "\n", "a")  # what a text can go on from; one of them merges with no beginning of it
PADDED = 0.75  # a row shorter than this share of its batch's width starts another batch


@dataclass
class Row:
    """One input of a forward pass and what is read off it."""

    tokens: tuple[int, ...]
    # request, first position, continuation
    reads: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)

    def positions(self) -> set[int]:
        """Positions whose logits are needed: position p predicts token p + 1."""
        return {
            first + offset for _, first, continuation in self.reads for offset in range(len(continuation))
        }


class Scorer(TemplateLM):
    """Scores (context, continuation) pairs with a causal model.

    Args:
        batch_tokens: tokens (padding included) of one forward pass; a single longer row still runs.
        max_length: longest input in tokens; a longer one loses its beginning, as in lm-eval, and is counted
            in `truncated`.
        on_batch: called with (rows done, rows in all).
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer,
        bos: Bos,
        batch_tokens: int,
        max_length: int,
        on_batch: OnBatch = None,
    ):
        super().__init__()
        self._prefix = prefix(tokenizer, bos)
        self.model = model
        self.tokenizer = tokenizer
        self.bos = bos
        self.batch_tokens = batch_tokens
        self.max_length = max_length
        self.on_batch = on_batch
        self.truncated = 0

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What an empty context becomes."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs) -> list[int]:
        ids = bare(string, self.tokenizer)
        return ids if add_special_tokens is False else behind(self._prefix, ids)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        pairs = [request.args for request in requests]
        return self._loglikelihood_tokens([(pair, *self._encode_pair(*pair)) for pair in pairs])

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of both. Blanks at the end of the context belong to the continuation, and an empty
        context is a BOS (or EOS), as in lm-eval.
        """
        kept = context.rstrip()
        continuation = context[len(kept) :] + continuation
        if not kept:
            before, answer = self._nothing(), bare(continuation, self.tokenizer)
            return before, answer[len(before) * (answer[: len(before)] == before) :]
        whole, before = self.tok_encode(kept + continuation), self.tok_encode(kept)
        if whole[: len(before)] == before and len(whole) > len(before):
            return before, whole[len(before) :]
        return before, self._continued(continuation)

    def _nothing(self) -> list[int]:
        """Stands for an empty context.

        Raises:
            UserError: the tokenizer has nothing that could.
        """
        if self._prefix or self.prefix_token_id is not None:
            return self._prefix or [self.prefix_token_id]
        raise UserError("an item with an empty context: this tokenizer has neither BOS nor EOS to begin with")

    def _continued(self, text: str) -> list[int]:
        """A text encoded by itself, but as one that goes on: some tokenizers put a blank before a text that
        begins.
        """
        for anchor in ANCHORS:
            before, whole = bare(anchor, self.tokenizer), bare(anchor + text, self.tokenizer)
            if before and whole[: len(before)] == before and len(whole) > len(before):
                return whole[len(before) :]
        return bare(text, self.tokenizer)

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = True):
        raise NotImplementedError("rolling perplexity: use harness.evaluation.perplexity.perplexity")

    def generate_until(self, requests, disable_tqdm: bool = True):
        raise NotImplementedError("tasks that generate text are not supported")

    def _loglikelihood_tokens(self, requests: Sequence[tuple], **kwargs) -> list[tuple[float, bool]]:
        """Summed log-probability of every continuation, and whether each of its tokens is the most likely
        one.
        """
        self.truncated += sum(
            len(context) + len(continuation) - 1 > self.max_length for _, context, continuation in requests
        )
        # what the tokenizer makes nothing of is never the answer
        answers: list[tuple[float, bool]] = [(-math.inf, False)] * len(requests)
        asked = [index for index, (*_, continuation) in enumerate(requests) if continuation]
        kept = self._prefix if self.bos is Bos.window else []
        rows = plan([requests[index][1:] for index in asked], self.max_length, kept)
        done = 0
        for batch in self._batches(rows):
            for request, answer in self._score(batch):
                answers[asked[request]] = answer
            done += len(batch)
            if self.on_batch:
                self.on_batch(done, len(rows))
        return answers

    def _batches(self, rows: list[Row]) -> Iterator[list[Row]]:
        vocabulary = self.model.config.get_text_config().vocab_size
        batch: list[Row] = []
        positions: set[int] = set()
        for row in rows:  # longest first, so the first row of a batch is its width
            together = positions | row.positions()
            if batch and self._full([*batch, row], len(together) * vocabulary):
                yield batch
                batch, together = [], row.positions()
            batch, positions = [*batch, row], together
        if batch:
            yield batch

    def _full(self, batch: list[Row], logits: int) -> bool:
        """Whether the last row is one too many; `logits` counts those of one row."""
        width = len(batch[0].tokens)
        padded = len(batch[-1].tokens) < PADDED * width
        return padded or len(batch) * width > self.batch_tokens or len(batch) * logits > LOGITS_AT_ONCE

    @torch.no_grad()
    def _score(self, batch: list[Row]) -> Iterator[tuple[int, tuple[float, bool]]]:
        """(request, (log-probability, greedy)) of everything read off these rows."""
        width = len(batch[0].tokens)
        # The model is causal: what stands to the right of a row cannot change it, so any token pads.
        inputs = torch.tensor([row.tokens + (0,) * (width - len(row.tokens)) for row in batch])
        positions = sorted(set().union(*(row.positions() for row in batch)))
        column = {position: index for index, position in enumerate(positions)}
        reads = [(index, *read) for index, row in enumerate(batch) for read in row.reads]
        wanted = [
            (index, column[first + offset], token)
            for index, _, first, continuation in reads
            for offset, token in enumerate(continuation)
        ]
        logits = logits_at(self.model, inputs, torch.tensor(positions)).float()
        rows, columns, tokens = torch.tensor(wanted, device=logits.device).T
        scores = (logits[rows, columns, tokens] - logits.logsumexp(-1)[rows, columns]).cpu().double()
        greedy = (logits.argmax(-1)[rows, columns] == tokens).cpu()
        lengths = [len(continuation) for *_, continuation in reads]
        for (_, request, *_), score, hits in zip(
            reads, scores.split(lengths), greedy.split(lengths), strict=True
        ):
            yield request, (score.sum().item(), hits.all().item())


def plan(
    pairs: Sequence[tuple[list[int], list[int]]], max_length: int, kept: Sequence[int] = ()
) -> list[Row]:
    """Rows that cover all (context, continuation) pairs, longest first; inputs that begin another share its
    row.

    Args:
        kept: what the beginning of a request is, and stays where the request is cut.

    Raises:
        UserError: a continuation does not fit.
    """
    reads = []
    for request, (context, continuation) in enumerate(pairs):
        tokens = tuple(context + continuation)[:-1]
        if len(tokens) > max_length:
            if len(kept) + len(continuation) - 1 > max_length or len(continuation) > max_length:
                raise UserError(
                    f"an answer of {len(continuation)} tokens does not fit into the {max_length} that the "
                    "model reads at once: leave this task out of eval.tasks"
                )
            tokens = (*kept, *tokens[len(tokens) - max_length + len(kept) :])
        first = len(tokens) - len(continuation)
        reads.append((tokens, request, first, tuple(continuation)))
    rows: list[Row] = []
    for tokens, *read in sorted(reads, reverse=True):  # in this order an input follows those it begins
        if not rows or rows[-1].tokens[: len(tokens)] != tokens:
            rows.append(Row(tokens))
        rows[-1].reads.append(tuple(read))
    return sorted(rows, key=lambda row: (-len(row.tokens), row.tokens))


def logits_at(model: nn.Module, inputs: Tensor, positions: Tensor) -> Tensor:
    """Logits (rows, positions, vocabulary) at the given positions of every row; the head skips the others if
    it can.
    """
    device = model.get_input_embeddings().weight.device
    inputs, positions = inputs.to(device), positions.to(device)
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        return model(input_ids=inputs, use_cache=False, logits_to_keep=positions).logits
    return model(input_ids=inputs, use_cache=False).logits[:, positions]
