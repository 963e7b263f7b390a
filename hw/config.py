"""The parameters of one generated accelerator, with named presets."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from golden.network import Conv2d, IntegerNetwork, Tensor, VectorQuantize, signed_width
from golden.requantize import Widths

__all__ = [
    "DIGIT_WIDTHS",
    "MAX_WEIGHT_BITS",
    "PIPELINED_DIGIT_BITS",
    "PRESETS",
    "AcceleratorConfig",
    "UnsupportedNetworkError",
    "checked_digit_bits",
    "checked_integer",
    "preset",
]

DIGIT_WIDTHS = (1, 2, 4, 8, 16)
"""The digit widths that the array is generated for."""

PIPELINED_DIGIT_BITS = 8
"""From this digit width up the array has a carry-save pipeline register, unless it is told otherwise."""

MAX_WEIGHT_BITS = 16
MAX_SHIFT = 62
MAX_OUTPUT_BITS = 16
MAX_WIDTH = 64
MAX_WEIGHT_DEPTH = (1 << 16) - 1
MAX_ACTIVATION_DEPTH = 1 << 24
STREAM_WIDTHS = (32, 64, 128, 256, 512, 1024)


class UnsupportedNetworkError(ValueError):
    """A network that the configured hardware cannot compute; the message names the layer and both widths."""


def checked_integer(name: str, value: SupportsIndex, low: int, high: int | None = None) -> int:
    """Return ``value`` as an :class:`int`; ``name`` begins the sentence that refuses it.

    Raises
    ------
    :class:`TypeError`
        Not an integer.
    :class:`ValueError`
        Not in ``low .. high``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if number < low or (high is not None and number > high):
        rule = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{name} must be {rule}, not {value!r}")
    return number


def checked_digit_bits(value: SupportsIndex) -> int:
    """Return ``value`` as an :class:`int`, refusing what is not in :data:`DIGIT_WIDTHS`."""
    number = checked_integer("Digit width", value, 1)
    if number not in DIGIT_WIDTHS:
        raise ValueError(f"Digit width must be 1, 2, 4, 8 or 16, not {value!r}")
    return number


def _signed_bits(values: np.ndarray) -> int:
    """The least width of a two's complement number that holds each of ``values``."""
    return signed_width(int(values.min()), int(values.max()))


_TITLES = {
    "rows": "Number of rows",
    "lanes": "Number of lanes",
    "digit_bits": "Digit width",
    "acc_bits": "Accumulator width",
    "multiplier_bits": "Multiplier width",
    "skip_multiplier_bits": "Skip multiplier width",
    "bias_bits": "Bias width",
    "max_shift": "Largest shift",
    "max_output_bits": "Largest output width",
    "requant_lanes": "Number of requantizer lanes",
    "weight_depth": "Weight depth",
    "activation_depth": "Activation depth",
    "stream_bits": "Stream width",
}


@dataclass(frozen=True, kw_only=True)
class AcceleratorConfig:
    """Everything that distinguishes one generated accelerator from another.

    Parameters
    ----------
    name : :class:`str`
        What reports and files call it; an identifier.
    rows : :class:`int`
        Output channels computed in parallel; at least 1.
    lanes : :class:`int`
        Digit pairs multiplied per row and cycle; at least 1.
    digit_bits : :class:`int`
        Width d of the unsigned digits: 1, 2, 4, 8 or 16.
    acc_bits : :class:`int`
        Width of the accumulators, 2*d to 64. All sums are modulo ``2**acc_bits``, so only a layer's final
        ``sum(W*u)`` has to fit, as a signed number.
    multiplier_bits, skip_multiplier_bits, bias_bits : :class:`int`
        Signed widths of M, M_skip and B, 2 to 64.
    max_shift : :class:`int`
        Largest S, 0 to 62.
    max_output_bits : :class:`int`
        Largest width of an output code and of a residual operand's code, 1 to 16 and at most ``acc_bits``.
    requant_lanes : :class:`int`
        Accumulators requantized per cycle, 1 to ``rows``.
    weight_depth : :class:`int`
        Weight words of a row in each half of its bank, 1 to 65535.
    activation_depth : :class:`int`
        Words of ``lanes`` digits in the activation buffer, 2 to 2**24.
    stream_bits : :class:`int`
        Data width of the AXI4-Streams: 32, 64, 128, 256, 512 or 1024. An accelerator needs at least
        ``lanes * digit_bits``.

    Raises
    ------
    :class:`TypeError`
        A number is not an integer, or the name is not a string.
    :class:`ValueError`
        A number is outside its range.
    """

    name: str
    rows: int
    lanes: int
    digit_bits: int
    acc_bits: int = 32
    multiplier_bits: int = 36
    skip_multiplier_bits: int = 46
    bias_bits: int = 56
    max_shift: int = 48
    max_output_bits: int = 8
    requant_lanes: int = 1
    weight_depth: int = 512
    activation_depth: int = 8192
    stream_bits: int = 64

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"Name must be a string, not {self.name!r}")
        if not self.name.isidentifier():
            raise ValueError(f"Name must be an identifier, not {self.name!r}")
        checked_digit_bits(self.digit_bits)
        self._check("rows", 1)
        self._check("lanes", 1)
        self._check("digit_bits", 1)
        self._check("acc_bits", 2 * self.digit_bits, MAX_WIDTH)
        self._check("multiplier_bits", 2, MAX_WIDTH)
        self._check("skip_multiplier_bits", 2, MAX_WIDTH)
        self._check("bias_bits", 2, MAX_WIDTH)
        self._check("max_shift", 0, MAX_SHIFT)
        self._check("max_output_bits", 1, min(MAX_OUTPUT_BITS, self.acc_bits))
        self._check("requant_lanes", 1, self.rows)
        self._check("weight_depth", 1, MAX_WEIGHT_DEPTH)
        self._check("activation_depth", 2, MAX_ACTIVATION_DEPTH)
        self._check("stream_bits", STREAM_WIDTHS[0], STREAM_WIDTHS[-1])
        if self.stream_bits not in STREAM_WIDTHS:
            raise ValueError(
                f"Stream width must be one of {', '.join(map(str, STREAM_WIDTHS))}, not {self.stream_bits!r}"
            )

    def _check(self, field: str, low: int, high: int | None = None) -> None:
        object.__setattr__(self, field, checked_integer(_TITLES[field], getattr(self, field), low, high))

    @property
    def widths(self) -> Widths:
        """The limits of the requantization constants, as the solver of golden takes them."""
        return Widths(
            multiplier_bits=self.multiplier_bits,
            skip_multiplier_bits=self.skip_multiplier_bits,
            bias_bits=self.bias_bits,
            max_shift=self.max_shift,
        )

    def check_accelerator(self) -> None:
        """Refuse parameters that an array may have and an accelerator around it may not.

        Raises
        ------
        :class:`ValueError`
            ``requant_lanes`` does not divide ``rows`` and ``lanes``, or a stream word does not hold an activation word.
        """
        if self.rows % self.requant_lanes or self.lanes % self.requant_lanes:
            raise ValueError(
                f"Number of requantizer lanes of an accelerator must divide {self.rows} rows and {self.lanes} lanes, "
                f"not {self.requant_lanes}"
            )
        if self.stream_bits < self.lanes * self.digit_bits:
            raise ValueError(
                f"Stream width of an accelerator must be at least {self.lanes * self.digit_bits}, "
                f"an activation word, not {self.stream_bits}"
            )

    def check(self, network: IntegerNetwork) -> None:
        """Refuse a network with a convolution or linear layer that this hardware cannot compute exactly.

        Raises
        ------
        :class:`UnsupportedNetworkError`
            One sentence with the layer's name, the width that it needs and the width that there is, or what it needs
            and no configuration has.
        """
        for op in network.operations:
            if isinstance(op, VectorQuantize):
                raise UnsupportedNetworkError(
                    f"Layer {op.name!r} finds the scales of vectors from their codes, which no configuration does"
                )
            if isinstance(op, Conv2d):
                skip = None if op.skip is None else network.tensor(op.skip)
                self.check_layer(op, network.tensor(op.input), network.tensor(op.output), skip)

    def check_layer(self, operation: Conv2d, source: Tensor, output: Tensor, skip: Tensor | None) -> None:
        """Refuse one convolution or linear layer as :meth:`check` does, its tensors given."""
        for scaled, what in ((operation.vector_scales, "weights"), (source.vector_scales, "input")):
            if scaled is not None:
                raise UnsupportedNetworkError(
                    f"Layer {operation.name!r} needs vector scales of its {what}, which no configuration has"
                )
        if operation.thresholds is not None:
            raise UnsupportedNetworkError(
                f"Layer {operation.name!r} compares with thresholds, which no configuration does: it multiplies and "
                "shifts (pactolus import --multiply does so too, and says how many accumulators differ)"
            )
        low, high = operation.accumulator_bounds(source)
        needs = [("acc_bits", _signed_bits(np.concatenate([low, high])))]
        constants = operation.requantize
        if constants is not None:
            needs.append(("max_output_bits", output.bits))
            needs.append(("multiplier_bits", _signed_bits(constants.multiplier)))
            needs.append(("bias_bits", _signed_bits(constants.bias)))
            needs.append(("max_shift", int(constants.shift.max())))
            if skip is not None and constants.skip_multiplier is not None:
                needs.append(("max_output_bits", skip.bits))
                needs.append(("skip_multiplier_bits", _signed_bits(constants.skip_multiplier)))
        for field, need in needs:
            if need > getattr(self, field):
                raise UnsupportedNetworkError(
                    f"Layer {operation.name!r} needs {field} of at least {need}, "
                    f"but configuration {self.name!r} has {getattr(self, field)}"
                )


PRESETS = {
    config.name: config
    for config in (
        AcceleratorConfig(
            name="tiny",
            rows=4,
            lanes=4,
            digit_bits=2,
            requant_lanes=2,
            weight_depth=1024,
            activation_depth=4096,
            stream_bits=32,
        ),
        AcceleratorConfig(name="small", rows=16, lanes=16, digit_bits=4, requant_lanes=4),
        AcceleratorConfig(
            name="wide", rows=64, lanes=64, digit_bits=2, requant_lanes=8, weight_depth=256, stream_bits=128
        ),
        AcceleratorConfig(name="int8", rows=16, lanes=16, digit_bits=8, requant_lanes=4, stream_bits=128),
    )
}
"""The named configurations: ``tiny`` for tests, ``small``, ``wide`` for 2-bit networks, ``int8``. The widths of their
requantization constants are those of exact 8-bit residual layers with a few bits to spare."""


def preset(name: str) -> AcceleratorConfig:
    """The preset called ``name``.

    Raises
    ------
    :class:`ValueError`
        There is none of that name; the sentence lists them.
    """
    if name not in PRESETS:
        raise ValueError(f"Config must be one of {', '.join(PRESETS)}, not {name!r}")
    return PRESETS[name]
