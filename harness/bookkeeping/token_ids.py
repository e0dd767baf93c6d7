"""The token ids that a run is made of, by their hashes: another release of the tokenizer's library may make
others of the same files, and the run key would not move.

A record holds the hashes that it was made with. One whose hashes are no longer those of today answers for no
run of today; one of a former version holds none, and is taken at its word.
"""

import hashlib

from torch import LongTensor

from harness.config.groups import ModelConfig
from harness.config.run_config import RunConfig
from harness.data import corpora
from harness.data.tokens import identity
from harness.data.windows import calibration_tokens, evaluation_windows
from harness.foundation.errors import UserError
from harness.models.tokenizers import tokenizer_of, with_bos
from harness.records.store import Store

CALIBRATION = "calibration"
_known: dict[tuple, str] = {}  # of this process: the points of a sweep share most of them


def token_ids(config: RunConfig) -> dict[str, str]:
    """Hashes of the token ids of today, under "calibration" (if the run has one) and "perplexity/<corpus>".

    Raises:
        UserError: a text cannot be had or is too short, or there is no usable tokenizer.
    """
    model, found = with_bos(config.model), {}
    for corpus in config.eval.corpora:
        asked = config.eval.window, config.eval.windows_of(corpus)
        found[f"perplexity/{corpus}"] = _hashed(
            model, corpus, "test", config.eval.mirror, asked, evaluation_windows
        )
    if config.method.solver is not None:
        data = config.data
        asked = data.samples, data.window, config.seed
        found[CALIBRATION] = _hashed(model, data.name, "train", data.mirror, asked, calibration_tokens)
    return found


def changed(record: dict | None, config: RunConfig) -> str | None:
    """What to tell of a record whose token ids are no longer those of today; None where they are, or where
    that cannot be told.
    """
    held = (record or {}).get("token_ids") or {}
    if not held:
        return None
    try:
        today = token_ids(config)
    except UserError:
        return None  # nothing to compare with; whoever needs the texts says so
    names = sorted(name for name, ids in held.items() if today.get(name, ids) != ids)
    if not names:
        return None
    return (
        f"made with other token ids ({', '.join(names)}) than the tokenizer gives today, tokenizers "
        f"{record.get('versions', {}).get('tokenizers', '?')} then; computed again"
    )


def finished(store: Store, key: str, config: RunConfig) -> bool:
    """Has the run left everything that is asked of it, with the token ids of today?"""
    if not store.finished(key, config.save):
        return False
    return not changed(store.record(key), config)


def _hashed(model: ModelConfig, corpus: str, split: str, mirror: str | None, asked: tuple, read) -> str:
    tokenizer = tokenizer_of(model)
    name = (identity(tokenizer), model.bos, corpus, split, mirror, asked)
    if name[0] is None or name not in _known:
        documents = corpora.documents(corpus, split, mirror)
        _known[name] = ids_sha256(read(documents, tokenizer, *asked, model.bos))
    return _known[name]


def ids_sha256(tokens: LongTensor) -> str:
    """16 hexadecimal digits of the hash of token ids and their shape."""
    content = f"{tuple(tokens.shape)} ".encode() + tokens.cpu().contiguous().numpy().astype("<i8").tobytes()
    return hashlib.sha256(content).hexdigest()[:16]
