"""Numbers that cannot be a float model's, seen in config.json and in headers before a weight is read."""

import json

import pytest
import torch

from tests.models.test_foreign_files import logits, refused, written
from tests.models.test_loading import edit_weights

BIAS = "model.layers.0.self_attn.q_proj.bias"


def test_biases_in_integers_are_a_quantized_model_s(tmp_path):
    directory = written(tmp_path, attention_bias=True)
    logits(directory)
    edit_weights(lambda tensors: tensors.update({BIAS: tensors[BIAS].to(torch.int8)}))(directory)
    refused(directory, rf"{BIAS} is stored as I8: already quantized")


@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta"])
def test_a_nan_in_config_json_is_named(tmp_path, key):
    path = written(tmp_path) / "config.json"
    content = json.loads(path.read_text())
    (content if key in content else content["rope_parameters"])[key] = float("nan")
    path.write_text(json.dumps(content))
    refused(tmp_path, rf"{key} is not a number \(NaN\)")
