"""What identifies a run: a hash of everything that can change its numbers, and of nothing else.

Names, paths, devices, trackers and overrides are left out; the bytes of the model and of the texts are in.
"""

import hashlib
import json
from dataclasses import asdict, replace
from enum import Enum
from functools import lru_cache
from typing import Any

from harness.config.groups import DataConfig, EvalConfig, ModelConfig
from harness.config.run_config import RunConfig
from harness.data import corpora
from harness.evaluation.tasks import task_data
from harness.foundation.hashes import directory_sha256
from harness.models.fingerprint import model_fingerprint
from harness.models.tokenizers import with_bos
from harness.records.format import NUMBERS
from methods.contracts.method import Method
from methods.contracts.scheme import Scheme

FLOAT = {"name": "float", "solver": None}


def run_key(config: RunConfig) -> str:
    """16 hex digits; equal for equal semantic configurations."""
    return digest(semantic(config))


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()[:16]


def semantic(config: RunConfig) -> dict:
    """The fields that a number can depend on. The float model depends on no calibration and no scheme."""
    fields = {
        "numbers": NUMBERS,
        "model": _model(config.model),
        "eval": _eval(config.eval),
        "seed": config.seed,
        "method": _method(config.method_config),
    }
    if config.method.solver is not None:
        fields |= {"data": calibration(config.data), "scheme": _scheme(config.scheme)}
    return fields


def quantized_key(config: RunConfig) -> str:
    """Identifies the quantized model: all that its weights depend on, and nothing of its evaluation."""
    return quantized_key_of(semantic(config))


def quantized_key_of(fields: dict) -> str:
    """The same from what `semantic` gave, or from the config.yaml that a run has left of it."""
    return digest({name: value for name, value in fields.items() if name != "eval"})


def statistics_key(config: RunConfig) -> str:
    """Identifies the calibration statistics of the float model, shared by all methods and schemes."""
    data = replace(config.data, block_error=False)  # measured beside them, they do not depend on it
    return digest([NUMBERS, _model(config.model), calibration(data), config.seed])


def baseline_of(config: RunConfig) -> RunConfig:
    """The same run of the unquantized model."""
    return replace(config, method=Method(**FLOAT), method_config=FLOAT, save=False)


def calibration(data: DataConfig) -> dict:
    """The calibration settings that a number can depend on, with the hash of the text."""
    fields = _without(data, "mirror")
    if not data.block_error:
        del fields["block_error"]
    if data.propagate.value == "float":
        del fields["true_sequential"]  # without meaning: every linear sees the float activations
    return fields | {"text": text_sha256(data.name, "train", data.mirror)}


def _method(config: dict) -> dict:
    """Without halves that are not there. A transform with a solver is one method, whichever of the two gave
    it its name.
    """
    fields = {name: value for name, value in config.items() if value is not None or name == "solver"}
    return (
        {name: value for name, value in fields.items() if name != "name"} if "transform" in fields else fields
    )


def _scheme(scheme: Scheme) -> dict:
    """Without the fields that mean nothing beside the others."""
    fields = asdict(scheme)
    if scheme.scale_bits is None:
        del fields["scale_bits"], fields["scale_group_size"]
    if scheme.outlier_ratio == 0:
        del fields["outlier_ratio"], fields["outlier_structure"]
    if scheme.kv_bits in (None, scheme.act_bits):
        del fields["kv_bits"]
    if not scheme.quantizes_activations:
        del fields["act_bits"], fields["act_symmetric"], fields["act_range"]
    return fields


def _eval(config: EvalConfig) -> dict:
    """With the hashes of the texts, and of the tasks' data on a mirror; of what the hub serves for a task,
    only the protocol tells.
    """
    fields = _without(config, "name", "mirror") | {
        "texts": {name: text_sha256(name, "test", config.mirror) for name in config.corpora}
    }
    mirrored = {name: data for name in config.tasks if (data := task_data(name, config.mirror))}
    if mirrored:
        fields["task_data"] = {name: directory_sha256(data) for name, data in mirrored.items()}
    return fields


def _model(config: ModelConfig) -> dict:
    return {
        "fingerprint": fingerprint(config),
        "dtype": config.dtype.value,
        "bos": with_bos(config).bos.value,
    }


@lru_cache(maxsize=64)
def fingerprint(config: ModelConfig) -> str:
    return model_fingerprint(config)


@lru_cache(maxsize=64)
def text_sha256(name: str, split: str, mirror: str | None) -> str:
    return corpora.text_sha256(corpora.documents(name, split, mirror))


def _without(config: Any, *names: str) -> dict:
    return {key: value for key, value in asdict(config).items() if key not in names}


def plain(value: Any) -> Any:
    """Enums by name and containers rebuilt, so that JSON can hold it."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value
