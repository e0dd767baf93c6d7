"""Whether a tokenizer's ids have rows in the embedding, known before any text is encoded.

Embeddings are often longer than the vocabulary (padded), and some vocabularies hold special tokens that no
text of ours contains (a chat's, a mask). What counts is what a run can meet: the tokens that are put before
texts, and those that a text can become.
"""

from transformers import PreTrainedTokenizerBase

from harness.data.tokens import own_prefix


def beyond_embedding(tokenizer: PreTrainedTokenizerBase, rows: int) -> str | None:
    """Which token that a run meets has no row in an embedding of so many, and what to do; None where all have
    one.
    """
    remedy = "use the tokenizer that belongs to the model"
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    alone = [token for token in (eos if bos is None else bos,) if token is not None]  # of an empty context
    for token in [*own_prefix(tokenizer), *alone]:
        if token >= rows:
            name = tokenizer.convert_ids_to_tokens(token)
            where = f"(id {token}) stands before texts, but the model's embedding has {rows} rows"
            return f"{name!r} {where}: {remedy}"
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    beyond = {id: name for name, id in tokenizer.get_vocab().items() if id >= rows and id not in special}
    if beyond:
        first = f"such as {beyond[min(beyond)]!r} (id {min(beyond)})"
        return f"{len(beyond)} tokens {first} are beyond the {rows} rows of the model's embedding: {remedy}"
    return None
