"""AcceleratorConfig: its checks, its presets and what it refuses of a network."""

import dataclasses
import re

import numpy as np
import pytest

from golden.network import (
    Conv2d,
    Grid,
    IntegerNetwork,
    Kind,
    Requantize,
    Tensor,
    Thresholds,
    VectorQuantize,
    VectorScales,
)
from hw.config import PRESETS, AcceleratorConfig, UnsupportedNetworkError
from hw.program import build

GOOD = {"name": "some", "rows": 6, "lanes": 3, "digit_bits": 4, "acc_bits": 20, "requant_lanes": 2}


def raises(kind, text):
    return pytest.raises(kind, match=f"^{re.escape(text)}$")


def test_init():
    config = AcceleratorConfig(**GOOD, multiplier_bits=18, skip_multiplier_bits=20, bias_bits=40, max_shift=30)
    assert dataclasses.asdict(config) == GOOD | {
        "multiplier_bits": 18,
        "skip_multiplier_bits": 20,
        "bias_bits": 40,
        "max_shift": 30,
        "max_output_bits": 8,
        "weight_depth": 512,
        "activation_depth": 8192,
        "stream_bits": 64,
    }
    assert config.widths.multiplier_bits == 18
    assert config.widths.skip_multiplier_bits == 20
    assert config.widths.bias_bits == 40
    assert config.widths.max_shift == 30
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.rows = 7


def test_numpy_integers_become_int():
    config = AcceleratorConfig(**GOOD | {"rows": np.int64(6)})
    assert type(config.rows) is int
    assert config == AcceleratorConfig(**GOOD)


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"name": 3}, TypeError, "Name must be a string, not 3"),
        ({"name": "a b"}, ValueError, "Name must be an identifier, not 'a b'"),
        ({"rows": 1.5}, TypeError, "Number of rows must be an integer, not 1.5"),
        ({"rows": 0}, ValueError, "Number of rows must be at least 1, not 0"),
        ({"lanes": 0}, ValueError, "Number of lanes must be at least 1, not 0"),
        ({"digit_bits": 3}, ValueError, "Digit width must be 1, 2, 4, 8 or 16, not 3"),
        ({"digit_bits": "4"}, TypeError, "Digit width must be an integer, not '4'"),
        ({"acc_bits": 7}, ValueError, "Accumulator width must be between 8 and 64, not 7"),
        ({"acc_bits": 65}, ValueError, "Accumulator width must be between 8 and 64, not 65"),
        ({"multiplier_bits": 1}, ValueError, "Multiplier width must be between 2 and 64, not 1"),
        ({"skip_multiplier_bits": 65}, ValueError, "Skip multiplier width must be between 2 and 64, not 65"),
        ({"bias_bits": 1}, ValueError, "Bias width must be between 2 and 64, not 1"),
        ({"max_shift": -1}, ValueError, "Largest shift must be between 0 and 62, not -1"),
        ({"max_shift": 63}, ValueError, "Largest shift must be between 0 and 62, not 63"),
        ({"max_output_bits": 0}, ValueError, "Largest output width must be between 1 and 16, not 0"),
        (
            {"max_output_bits": 9, "acc_bits": 8},
            ValueError,
            "Largest output width must be between 1 and 8, not 9",
        ),
        ({"requant_lanes": 7}, ValueError, "Number of requantizer lanes must be between 1 and 6, not 7"),
        ({"weight_depth": 0}, ValueError, "Weight depth must be between 1 and 65535, not 0"),
        ({"activation_depth": 1}, ValueError, "Activation depth must be between 2 and 16777216, not 1"),
        ({"stream_bits": 31}, ValueError, "Stream width must be between 32 and 1024, not 31"),
        ({"stream_bits": 96}, ValueError, "Stream width must be one of 32, 64, 128, 256, 512, 1024, not 96"),
    ],
)
def test_init_wrong(change, kind, text):
    with raises(kind, text):
        AcceleratorConfig(**GOOD | change)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"requant_lanes": 3, "rows": 6, "lanes": 8},
            "Number of requantizer lanes of an accelerator must divide 6 rows and 8 lanes, not 3",
        ),
        (
            {"rows": 4, "lanes": 64, "digit_bits": 2, "stream_bits": 64},
            "Stream width of an accelerator must be at least 128, an activation word, not 64",
        ),
    ],
)
def test_check_accelerator(change, text):
    config = AcceleratorConfig(**GOOD | change)
    with raises(ValueError, text):
        config.check_accelerator()


def test_presets():
    for config in PRESETS.values():
        config.check_accelerator()
    assert {name: (c.rows, c.lanes, c.digit_bits) for name, c in PRESETS.items()} == {
        "tiny": (4, 4, 2),
        "small": (16, 16, 4),
        "wide": (64, 64, 2),
        "int8": (16, 16, 8),
    }
    assert all(name == config.name for name, config in PRESETS.items())


def network(*, codes, multiplier=3, bias=-5, shift=4, skip_multiplier=None, input_bits=4, output_bits=4):
    """One requantized layer over ``len(codes)`` channels, its input also its residual operand, and a last layer."""
    codes = np.asarray(codes, dtype=np.uint8).reshape(1, -1, 1, 1)
    skip = skip_multiplier is not None
    constants = Requantize(
        multiplier=np.array([multiplier]),
        bias=np.array([bias]),
        shift=np.array([shift], dtype=np.uint8),
        skip_multiplier=np.array([skip_multiplier]) if skip else None,
    )
    return IntegerNetwork(
        name="net",
        tensors=(
            Tensor(name="x", shape=(codes.shape[1], 1, 1), bits=input_bits),
            Tensor(name="y", shape=(1, 1, 1), bits=output_bits),
            Tensor(name="z", shape=(1, 1, 1), kind=Kind.ACCUMULATOR, bits=16, slope=np.ones(1), offset=np.zeros(1)),
        ),
        operations=(
            Conv2d(
                name="conv",
                input="x",
                output="y",
                codes=codes,
                bits=4,
                grid=Grid.TWOS_COMPLEMENT,
                requantize=constants,
                skip="x" if skip else None,
            ),
            Conv2d(name="end", input="y", output="z", codes=codes[:, :1], bits=4, grid=Grid.TWOS_COMPLEMENT),
        ),
    )


# Codes 15 are weights 7: with inputs up to 15, ten of them reach 1050, which is 12 bits with the sign.
TEN = [15] * 10


@pytest.mark.parametrize(
    ("parameters", "limits", "need"),
    [
        ({"codes": TEN}, {"acc_bits": 11}, "acc_bits of at least 12"),
        ({"codes": [0] * 10}, {"acc_bits": 11}, "acc_bits of at least 12"),
        ({"codes": TEN, "multiplier": -129}, {"multiplier_bits": 8}, "multiplier_bits of at least 9"),
        ({"codes": TEN, "bias": 128}, {"bias_bits": 8}, "bias_bits of at least 9"),
        ({"codes": TEN, "shift": 9}, {"max_shift": 8}, "max_shift of at least 9"),
        ({"codes": TEN, "output_bits": 5}, {"max_output_bits": 4}, "max_output_bits of at least 5"),
        ({"codes": [15], "skip_multiplier": 128}, {"skip_multiplier_bits": 8}, "skip_multiplier_bits of at least 9"),
        (
            {"codes": [15], "skip_multiplier": 2, "input_bits": 6},
            {"max_output_bits": 5},
            "max_output_bits of at least 6",
        ),
    ],
)
def test_check(parameters, limits, need):
    net = network(**parameters)
    AcceleratorConfig(**GOOD).check(net)
    field, limit = next(iter(limits.items()))
    with raises(UnsupportedNetworkError, f"Layer 'conv' needs {need}, but configuration 'some' has {limit}"):
        AcceleratorConfig(**GOOD | limits).check(net)
    AcceleratorConfig(**GOOD | {field: limit + 1}).check(net)


def test_check_refuses_thresholds():
    net = network(codes=TEN)
    conv, end = net.operations
    compared = Thresholds(np.arange(15)[None], np.zeros(1, bool))
    changed = dataclasses.replace(
        net, operations=(dataclasses.replace(conv, requantize=None, thresholds=compared), end)
    )
    text = (
        "Layer 'conv' compares with thresholds, which no configuration does: it multiplies and shifts (pactolus import "
        "--multiply does so too, and says how many accumulators differ)"
    )
    with raises(UnsupportedNetworkError, text):
        PRESETS["wide"].check(changed)
    with raises(UnsupportedNetworkError, text):
        build(changed, PRESETS["wide"])


def test_check_refuses_vector_scales():
    net = network(codes=TEN)
    x, y, _ = net.tensors
    conv = net.operations[0]
    scales = VectorScales(np.ones(1, int), 1, 16)
    weights = VectorScales(np.ones((1, 1, 1, 1), int), 1, 16)
    quantize = VectorQuantize("fine", "y", "z", 2, 2, 16)
    for tensors, operations, text in (
        (
            (dataclasses.replace(x, vector_scales=scales), y),
            (conv,),
            "Layer 'conv' needs vector scales of its input, which no configuration has",
        ),
        (
            (x, y),
            (dataclasses.replace(conv, vector_scales=weights),),
            "Layer 'conv' needs vector scales of its weights, which no configuration has",
        ),
        (
            (x, y, dataclasses.replace(y, name="z")),
            (conv, quantize),
            "Layer 'fine' finds the scales of vectors from their codes, which no configuration does",
        ),
    ):
        changed = IntegerNetwork("n", tensors, operations)
        with raises(UnsupportedNetworkError, text):
            PRESETS["wide"].check(changed)
        with raises(UnsupportedNetworkError, text):
            build(changed, PRESETS["wide"])
