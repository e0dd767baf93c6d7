"""A GGUF file becomes an ordinary float32 checkpoint directory, once, and is tried before anyone relies on
it.
"""

import contextlib
import importlib.metadata
import importlib.util
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch

from harness.foundation.errors import UserError
from harness.foundation.files import write_atomic
from harness.foundation.hashes import sha256_file

SENTENCE = (
    "Paris is the capital of France. It lies on the river Seine, in the north of the country, and more than "
    "two million people live in the city."
)
HIGHEST_LOSS = 5.0  # nats per token on SENTENCE; a wrong rotary order or a broken tokenizer costs far more


def convert(gguf: Path, directory: Path, source: dict) -> None:
    """Write the model and tokenizer of `gguf` to `directory` with a manifest.json of their hashes and
    `source`.

    Every weight is stored as float32, tied embeddings once. Raises UserError when the result cannot predict
    English.
    """
    for module in ("gguf", "accelerate"):
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"transformers needs the package {module} to read GGUF files: pip install {module}"
            )
    with _silence():
        _dequantize(gguf, directory)
        loss = _try_out(directory)
    if not loss < HIGHEST_LOSS:
        raise UserError(
            f"{gguf.name} converted to a model that cannot read English (loss {loss:.2f}, expected below "
            f"{HIGHEST_LOSS}): install the transformers and gguf versions of constraints.txt"
        )
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(directory.iterdir())
    }
    versions = {package: importlib.metadata.version(package) for package in ("transformers", "gguf", "torch")}
    manifest = {"source": source, "files": files, "versions": versions, "loss": round(loss, 4)}
    write_atomic(directory / "manifest.json", json.dumps(manifest, indent=2) + "\n")


def _dequantize(gguf: Path, directory: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    model.hf_quantizer = None  # left in place, both would mark the float checkpoint as quantized
    del model.config.quantization_config
    model.config.__dict__.pop("_model_name_or_path", None)
    model.save_pretrained(directory, max_shard_size="8GB")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.init_kwargs.pop("is_local", None)  # how it was loaded here is no property of the tokenizer
    tokenizer.save_pretrained(directory)
    for path in directory.iterdir():
        path.chmod(0o644)  # safetensors writes for the owner only, but a cache may be shared


def _try_out(directory: Path) -> float:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = torch.tensor([tokenizer(SENTENCE).input_ids])
    if tokenizer.decode(ids[0], skip_special_tokens=True) != SENTENCE:
        return math.nan
    with torch.inference_mode():
        return model(ids, labels=ids).loss.item()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep progress bars and advice of the loaders off the terminal."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
