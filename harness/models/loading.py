"""From `model.id` to a model ready to be quantized, to its shapes alone, or to its fingerprint."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from harness.config.groups import ModelConfig
from harness.foundation.errors import UserError
from harness.models import tiny
from harness.models.families import Family, check_coverage, family_of
from harness.models.fingerprint import fingerprint, model_fingerprint
from harness.models.reading import _architecture, _tiny_name, line, quiet, read_tokenizer
from harness.models.shape import inspect, shape_of
from harness.models.sources import TINY, check_tokenizer, locate
from harness.models.weight_files import PICKLE, SAFETENSORS, check_shard, weight_files


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode without gradients, and what belongs to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    family: Family
    fingerprint: str


def load_model(config: ModelConfig, device: str) -> LoadedModel:
    """Load a model on a device, in `config.dtype`.

    Raises:
        UserError: the id names nothing, the files are damaged or unsafe, the architecture is not supported,
            or the weights do not fit it.
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
    shape_of(architecture)  # refuses on shapes before any weight is read
    model = _read_weights(directory, dtype, pickled=files[0].suffix == PICKLE.suffix)
    return _ready(
        model.to(device), read_tokenizer(directory), family, fingerprint(directory, config.allow_pickle)
    )


@lru_cache(maxsize=16)  # a sweep asks again for every point
def check_files(config: ModelConfig) -> None:
    """See, before a run starts, whether the model can be loaded: whole files, a working tokenizer, linears of
    the shapes in config.json.

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
            raise UserError(
                f"{directory}: the pickle is damaged or asks for more than tensors; do not trust this checkpoint"
            ) from error
        raise UserError(f"{directory}: the weights cannot be loaded: {line(error)}") from error
    for name, *shapes in sorted(report["mismatched_keys"]):
        raise _misfit(directory, name, *shapes)
    for name in sorted(report["missing_keys"]):
        raise UserError(
            f"{directory}: the weights lack {name}; they do not belong to this config.json, or the download is incomplete"
        )
    return model


def _misfit(place: Path, name: str, found: Sequence[int], wanted: Sequence[int]) -> UserError:
    return UserError(f"{place}: {name} has shape {tuple(found)}, but config.json wants {tuple(wanted)}")


def _ready(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, family: Family, mark: str
) -> LoadedModel:
    check_coverage(model, family, model.config)
    return LoadedModel(model.eval().requires_grad_(False), tokenizer, family, mark)
