"""From `model.id` to a model ready to be quantized, and whether it can be had."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from harness.config.groups import ModelConfig
from harness.foundation.errors import UserError
from harness.models import tiny
from harness.models.families import FAMILIES, Family, check_coverage, family_of
from harness.models.reading import check_tokenizer, first_words, quiet, read_tokenizer
from harness.models.shape import inspect
from harness.models.sources import source_of
from harness.models.weight_files import PICKLE, SAFETENSORS, check_shard, weight_files


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode without gradients, and what belongs to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    family: Family


def load_model(config: ModelConfig, device: str) -> LoadedModel:
    """Load a model on a device, in `config.dtype`.

    Raises:
        UserError: the id names nothing, the files are damaged or unsafe, the architecture is not supported,
            or the weights do not fit it.
    """
    source, dtype = source_of(config), getattr(torch, config.dtype.value)
    if source.kind == "tiny":
        model, tokenizer = tiny.tiny_model(source.name, dtype=dtype)
        family = family_of(model.config)
    else:
        family = FAMILIES[inspect(config).family]  # refuses on shapes before any weight is read
        directory = source.directory(weights=True)
        files = weight_files(directory, config.allow_pickle)
        check_tokenizer(directory)
        model = _read_weights(directory, dtype, pickled=files[0].suffix == PICKLE.suffix)
        tokenizer = read_tokenizer(directory)
    check_coverage(model, family, model.config)
    return LoadedModel(model.to(device).eval().requires_grad_(False), tokenizer, family)


@lru_cache(maxsize=16)  # a sweep asks again for every point
def check_files(config: ModelConfig) -> None:
    """See, before a run starts, whether the model can be loaded: whole files, a working tokenizer, linears of
    the shapes in config.json.

    Raises:
        UserError: as `load_model`, but for what only the weights themselves can show.
    """
    source = source_of(config)
    if source.kind == "tiny":
        return
    shapes = inspect(config).paths
    directory = source.directory(weights=True)
    for path in weight_files(directory, config.allow_pickle):
        for name, entry in check_shard(path).items() if path.suffix == SAFETENSORS.suffix else ():
            wanted = shapes.get(name.removesuffix(".weight"))
            if wanted and name.endswith(".weight") and tuple(entry["shape"]) != wanted:
                raise _misfit(path, name, entry["shape"], wanted)
    check_tokenizer(directory)
    read_tokenizer(directory)


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
            reason = "the pickle is damaged or asks for more than tensors; do not trust this checkpoint"
            raise UserError(f"{directory}: {reason}") from error
        raise UserError(f"{directory}: the weights cannot be loaded: {first_words(error)}") from error
    for name, *shapes in sorted(report["mismatched_keys"]):
        raise _misfit(directory, name, *shapes)
    for name in sorted(report["missing_keys"]):
        reason = "they do not belong to this config.json, or the download is incomplete"
        raise UserError(f"{directory}: the weights lack {name}; {reason}")
    return model


def _misfit(place: Path, name: str, shape: Sequence[int], wanted: Sequence[int]) -> UserError:
    return UserError(f"{place}: {name} has shape {tuple(shape)}, but config.json wants {tuple(wanted)}")
