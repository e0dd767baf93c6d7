"""From `model.id` to a model ready to be quantized, to its shapes alone, or to its fingerprint."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from harness import tiny
from harness.blocks import BatchInput, BlockSource, ModelBlocks
from harness.config.groups import ModelConfig
from harness.families import FAMILIES, Family, check_coverage, family_of, skeleton
from harness.fingerprint import fingerprint
from harness.foundation.errors import UserError
from harness.model_files import check_config, check_tokenizer, locate
from harness.shards import PICKLE, SAFETENSORS, check_shard, weight_files
from methods.core.seams import Seam

__all__ = ["BatchInput", "BlockSource", "LoadedModel", "ModelBlocks", "ModelShape"]
__all__ += ["check_files", "inspect", "load_model", "model_fingerprint"]

TINY = "tiny:"
SUPERSEDED_CODE = {family.name: family.superseded_code for family in FAMILIES.values()}


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode without gradients, and what belongs to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    family: Family
    fingerprint: str


@dataclass(frozen=True)
class ModelShape:
    """What config.json alone tells about a model."""

    family: str
    linears: dict[str, tuple[int, int]]  # full path -> (out, in), of every linear that would be quantized
    blocks: int
    context_length: int | None  # tokens; None where the architecture sets no limit
    vocab_size: int
    parameters: int  # tied ones once
    quantizable: int  # parameters in the linears
    seams: tuple[Seam, ...]  # of every block
    quantizable_activations: bool  # is it known where queries, keys and values are multiplied?


def load_model(config: ModelConfig, device: str) -> LoadedModel:
    """Load a model on a device, in `config.dtype`.

    Raises:
        UserError: the id names nothing, the files are damaged or unsafe, the architecture is not supported, or the weights
            do not fit it.
    """
    dtype = getattr(torch, config.dtype.value)
    if config.id.startswith(TINY):
        name = _tiny_name(config)
        model, tokenizer = tiny.tiny_model(name, dtype=dtype)
        return _ready(model.to(device), tokenizer, family_of(model.config), model_fingerprint(config))
    directory = locate(config, weights=True)
    architecture = _architecture(directory)
    family = family_of(architecture)
    files = weight_files(directory, config.allow_pickle)
    check_tokenizer(directory)
    _shape_of(architecture)  # refuses on shapes before any weight is read
    model = _read_weights(directory, dtype, pickled=files[0].suffix == PICKLE.suffix)
    return _ready(model.to(device), read_tokenizer(directory), family, fingerprint(directory, config.allow_pickle))


def model_fingerprint(config: ModelConfig) -> str:
    """`sha256:<hex>` of the bytes that make the model: weights, config and tokenizer; nothing is loaded.

    Raises:
        UserError: the id names nothing, or the files are damaged.
    """
    if config.id.startswith(TINY):
        return tiny.tiny_fingerprint(_tiny_name(config))
    return fingerprint(locate(config, weights=True), config.allow_pickle)


@lru_cache(maxsize=16)  # a sweep asks again for every point
def check_files(config: ModelConfig) -> None:
    """See, before a run starts, whether the model can be loaded: whole files, a working tokenizer, linears of the shapes in config.json.

    Raises:
        UserError: as `load_model`, but for what only the weights themselves can show.
    """
    if config.id.startswith(TINY):
        return
    linears = inspect(config).linears
    directory = locate(config, weights=True)
    for path in weight_files(directory, config.allow_pickle):
        for name, entry in check_shard(path).items() if path.suffix == SAFETENSORS.suffix else ():
            wanted = linears.get(name.removesuffix(".weight"))
            if wanted and name.endswith(".weight") and tuple(entry["shape"]) != wanted:
                raise _misfit(path, name, entry["shape"], wanted)
    check_tokenizer(directory)
    read_tokenizer(directory)


def inspect(config: ModelConfig) -> ModelShape:
    """The shapes of a model from its config.json, without weights.

    Raises:
        UserError: the id names nothing, the config is unsafe, or the architecture is not supported.
    """
    if config.id.startswith(TINY):
        return _shape_of(tiny.tiny_config(_tiny_name(config)))
    return _shape_of(_architecture(locate(config, weights=False)))


def _shape_of(architecture: PreTrainedConfig) -> ModelShape:
    return _shape(type(architecture), architecture.to_json_string(use_diff=False))


@lru_cache(maxsize=16)  # a sweep asks again for every point
def _shape(kind: type[PreTrainedConfig], content: str) -> ModelShape:
    architecture = kind.from_dict(json.loads(content))
    family = family_of(architecture)
    model = skeleton(architecture, torch.float32)
    check_coverage(model, family, architecture)
    paths = [path for group in family.groups(architecture) for path in group]
    blocks = family.block_list(model)
    if not len(blocks):
        raise UserError(f"model_type {architecture.model_type!r}: config.json asks for no blocks; fetch the file again")
    weights = {f"{family.blocks}.{i}.{path}": block.get_submodule(path).weight for i, block in enumerate(blocks) for path in paths}
    text = architecture.get_text_config()
    return ModelShape(
        family=family.name,
        linears={path: tuple(weight.shape) for path, weight in weights.items()},
        blocks=len(blocks),
        context_length=getattr(text, "max_position_embeddings", None),
        vocab_size=text.vocab_size,
        parameters=sum(p.numel() for p in model.parameters()),
        quantizable=sum(weight.numel() for weight in weights.values()),
        seams=family.seams(architecture),
        quantizable_activations=family.attention(architecture) is not None,
    )


def _tiny_name(config: ModelConfig) -> str:
    name = config.id.removeprefix(TINY)
    if name not in tiny.CONFIGS:
        raise UserError(f"model.id={config.id}: unknown; choose among {', '.join(TINY + known for known in tiny.CONFIGS)}")
    if config.revision is not None:
        raise UserError(f"model.revision={config.revision}: only hub models have revisions; set it to null for model.id={config.id}")
    return name


def _architecture(directory: Path) -> PreTrainedConfig:
    check_config(directory, SUPERSEDED_CODE)
    return read_architecture(directory)


def read_architecture(directory: Path) -> PreTrainedConfig:
    """The config object of a directory whose config.json was checked.

    Raises:
        UserError: transformers does not know the model_type, or a value is ill-typed.
    """
    try:
        with quiet():
            return AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers validates with exceptions of several packages
        raise UserError(f"{directory / 'config.json'}: {_line(error)}") from error


def read_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory.

    Raises:
        UserError: there is none, or it cannot be built.
    """
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each tokenizer class fails in its own way
        raise UserError(f"{directory}: no usable tokenizer: {_line(error)}; fetch the tokenizer files again") from error


def _read_weights(directory: Path, dtype: torch.dtype, pickled: bool) -> PreTrainedModel:
    try:
        with quiet():
            model, report = AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=dtype,
                use_safetensors=not pickled,
                weights_only=True,  # of pickles: tensors and plain containers, no other class and no call
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # reported below, by name, instead of as a table
                output_loading_info=True,
            )
    except (MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "UnpicklingError":  # its text advises to run whatever the file asks for
            raise UserError(f"{directory}: the pickle is damaged or asks for more than tensors; do not trust this checkpoint") from error
        raise UserError(f"{directory}: the weights cannot be loaded: {_line(error)}") from error
    for name, *shapes in sorted(report["mismatched_keys"]):
        raise _misfit(directory, name, *shapes)
    for name in sorted(report["missing_keys"]):
        raise UserError(f"{directory}: the weights lack {name}; they do not belong to this config.json, or the download is incomplete")
    return model


def _misfit(place: Path, name: str, found: Sequence[int], wanted: Sequence[int]) -> UserError:
    return UserError(f"{place}: {name} has shape {tuple(found)}, but config.json wants {tuple(wanted)}")


def _ready(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, family: Family, mark: str) -> LoadedModel:
    check_coverage(model, family, model.config)
    return LoadedModel(model.eval().requires_grad_(False), tokenizer, family, mark)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and warnings; what matters is raised as one line."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
