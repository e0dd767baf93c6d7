"""What a method needs besides its weights: every reason alone makes the text go through the model."""

from dataclasses import replace

import pytest

from harness.config.groups import DataConfig, Propagate
from harness.quantization.needs import Needs
from methods.contracts.method import Method
from methods.contracts.scheme import ActRange
from tests.helpers.problems import scheme

RTN, SCHEME = Method("m", solver=object()), scheme(bits=4, act_bits=8)
DATA = DataConfig("synthetic", 8, 32, 4, Propagate.float, True, False, None)


@pytest.mark.parametrize(
    "method, of_scheme, data, flag",
    [
        (replace(RTN, transform=object()), SCHEME, DATA, "watched"),
        (RTN, SCHEME, replace(DATA, block_error=True), "watched"),
        (RTN, replace(SCHEME, act_range=ActRange.tensor), DATA, "static"),
        (replace(RTN, tuning=object()), SCHEME, DATA, "tuned"),
    ],
)
def test_one_reason_is_enough(method, of_scheme, data, flag):
    plain, needs = Needs.of(RTN, SCHEME, DATA), Needs.of(method, of_scheme, data)
    assert not plain.activations and needs.activations
    assert needs == replace(plain, **{flag: True})


def test_statistics_of_a_half_quantized_model_are_nobody_elses():
    needs = Needs.of(RTN, SCHEME, replace(DATA, propagate=Propagate.quantized))
    assert not needs.shared and needs.activations
