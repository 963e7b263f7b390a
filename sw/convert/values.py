"""What a node of the float model's graph stands for, and what the swap is to make of it."""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import fx, nn

__all__ = ["Activation", "Average", "Code", "Pooled", "Result", "Sum", "Value", "Weight"]


@dataclass(frozen=True)
class Code:
    """A quantized tensor: the path of its quantizer, and of how many positions each channel was flattened."""

    path: str
    signed: bool
    positions: int = 1


@dataclass(frozen=True)
class Average:
    """The global average of a quantized tensor."""

    code: Code


@dataclass(frozen=True)
class Result:
    """What a layer with weights gives, with batch norm and one residual operand if they are there.

    Members
    -------
    layer : :class:`str`
        Its path.
    label : :class:`str`
        Of the node that the last of them is.
    depth : :class:`int`
        Layers with weights between the input and here, the most of all ways.
    """

    layer: str
    label: str
    depth: int
    norm: bool = False
    added: bool = False


@dataclass(frozen=True)
class Pooled:
    """The max pool of a result whose activation is still to come."""

    result: Result
    pool: fx.Node


@dataclass(frozen=True)
class Sum:
    """The sum of two quantized tensors."""

    label: str


Value = Code | Average | Result | Pooled | Sum | None
"""``None`` stands for what follows a refusal."""


@dataclass
class Weight:
    """A layer with weights: what it reads, and where it stands.

    Members
    -------
    projection : :class:`bool`
        Whether it is what a shortcut computes.
    positions : :class:`int`
        Of the flattened map that a linear layer reads.
    """

    module: nn.Conv2d | nn.Linear
    source: Code | None
    last: bool = False
    projection: bool = False
    positions: int = 1
    norms: list[nn.Module] = dataclasses.field(default_factory=list)
    bare: bool = False


@dataclass
class Activation:
    """An activation quantizer to be: the float node that it quantizes, the layer that it follows, and its form.

    Members
    -------
    stream : :class:`bool`
        Whether a residual sum, or a projection shortcut, reads it.
    """

    source: str
    layer: str | None
    signed: bool = False
    ceiling: float | None = None
    stream: bool = False
