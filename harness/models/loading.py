"""From `model.id` to a model ready to be quantized, and whether it can be had."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from harness.config.groups import ModelConfig
from harness.foundation.errors import TOO_LARGE, UserError
from harness.models import tiny
from harness.models.families import FAMILIES, Family, check_coverage, family_of
from harness.models.reading import check_tokenizer, first_words, quiet, read_architecture, read_tokenizer
from harness.models.shape import inspect
from harness.models.sources import source_of
from harness.models.vocabulary import beyond_embedding
from harness.models.weight_files import PICKLE, SAFETENSORS, beside_shards, promised_in_vain, weight_files


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
        _check_finite(directory, model)
    check_coverage(model, family, model.config)
    return LoadedModel(model.to(device).eval().requires_grad_(False), tokenizer, family)


@lru_cache(maxsize=16)  # a sweep asks again for every point
def check_files(config: ModelConfig) -> None:
    """See, before a run starts, whether the model can be loaded: whole files, a working tokenizer, every
    tensor in its place and of the shape that config.json wants.

    Raises:
        UserError: as `load_model`, but for what only the weights themselves can show.
    """
    source = source_of(config)
    if source.kind == "tiny":
        return
    shape, directory = inspect(config), source.directory(weights=True)
    files = weight_files(directory, config.allow_pickle)
    check_tokenizer(directory)
    tokenizer = read_tokenizer(directory)
    if reason := beyond_embedding(tokenizer, shape.vocabulary):
        raise UserError(f"{directory}: {reason}")
    if files[0].suffix == SAFETENSORS.suffix:  # a pickle tells no names before it is read
        _read_weights(directory, torch.float32, pickled=False, device="meta")


def _read_weights(
    directory: Path, dtype: torch.dtype, pickled: bool, device: str | None = None
) -> PreTrainedModel:
    """
    Args:
        device: "meta" reads the headers of the files alone.
    """
    try:
        with quiet():
            model, report = AutoModelForCausalLM.from_pretrained(
                directory,
                config=read_architecture(directory),
                dtype=dtype,
                device_map=device,
                use_safetensors=not pickled,
                weights_only=True,  # of pickles: tensors and plain containers, no other class and no call
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # reported below, by name, instead of as a table
                output_loading_info=True,
            )
    except (MemoryError, torch.cuda.OutOfMemoryError, UserError):
        raise
    except Exception as error:
        if type(error).__name__ == "UnpicklingError":  # its text advises to run whatever the file asks for
            reason = "the pickle is damaged or asks for more than tensors; do not trust this checkpoint"
            raise UserError(f"{directory}: {reason}") from error
        raise UserError(f"{directory}: the weights cannot be loaded: {first_words(error)}") from error
    if reason := _misfit(report, promised_in_vain(directory) - set(model.all_tied_weights_keys)):
        raise UserError(f"{directory}: {reason}{beside_shards(directory)}")
    return model


def _misfit(report: dict, promised: Collection[str]) -> str | None:
    """Why weights and config.json are not of one model: a tensor without a place, a place without a tensor.
    What transformers declares ignorable is in neither list.
    """
    for name, shape, wanted in sorted(report["mismatched_keys"]):
        return f"{name} has shape {tuple(shape)}, but config.json wants {tuple(wanted)}"
    belong = "the weights do not belong to this config.json"
    if missing := report["missing_keys"] | promised:
        return f"the weights lack {_some(missing)}; {belong}, or the download is incomplete"
    if unexpected := report["unexpected_keys"]:
        place = f"the model that config.json describes has no place for {_some(unexpected)}"
        return f"{place}, and would compute without; {belong}"
    return None


def _some(names: Collection[str], most: int = 3) -> str:
    """The first few of many names, in the order of their numbers, and how many more there are."""
    by_number = sorted(names, key=lambda name: [part.zfill(9) for part in name.split(".")])
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(by_number[:most]) + more


def _check_finite(directory: Path, model: PreTrainedModel) -> None:
    """One pass over every tensor: a weight that is not finite makes every number of a run meaningless,
    whatever the method.
    """
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or all(map(torch.isfinite, tensor.aminmax())):
            continue
        index = (~tensor.isfinite()).nonzero()[0].tolist()
        where = f"{directory}: {name}{index} is {tensor[tuple(index)].item()}"
        if tensor.dtype is torch.float16:
            raise UserError(f"{where} in float16: damaged, or {TOO_LARGE}")
        raise UserError(f"{where}: the weights are damaged; fetch the model again")
