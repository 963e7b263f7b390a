"""One wrong weight for the RTL, chosen so that it shows: the proof that a run can fail."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from golden.execute import execute
from golden.network import Conv2d, IntegerNetwork, NetworkError

__all__ = ["Broken", "break_weight"]


@dataclass(frozen=True)
class Broken:
    """A network in which one weight code is another: the layer, the index (O, C/groups, kh, kw), both codes."""

    network: IntegerNetwork
    operation: str
    index: tuple[int, ...]
    was: int
    code: int

    def __str__(self) -> str:
        index = ", ".join(str(i) for i in self.index)
        return f"weight code {self.code} instead of {self.was} at [{index}] of layer {self.operation}"


def break_weight(network: IntegerNetwork, layer: str, x: np.ndarray, *, visible: str) -> Broken | None:
    """Change one weight code of a layer so that at least one code of a tensor changes.

    Weights are tried one by one, output channels innermost, each with the code that is furthest from its own; golden
    computes the consequence.

    Parameters
    ----------
    layer : :class:`str`
        Name of a :class:`~golden.network.Conv2d` of the network.
    x : unsigned array (N, C, H, W)
        Input codes.
    visible : :class:`str`
        The tensor that has to change: the layer's output, or what a pool behind it makes of that.

    Returns
    -------
    Broken or None
        None when no such change of any weight has an effect on these frames.
    """
    operation = network.operation(layer)
    assert isinstance(operation, Conv2d)
    expected = execute(network, x)[visible]
    largest = (1 << operation.bits) - 1
    for reversed_index in np.ndindex(operation.codes.shape[::-1]):
        index = reversed_index[::-1]
        codes = operation.codes.copy()
        was = int(codes[index])
        codes[index] = code = 0 if 2 * was > largest else largest
        operations = tuple(replace(o, codes=codes) if o is operation else o for o in network.operations)
        try:
            changed = replace(network, operations=operations)
        except NetworkError:  # the sums could leave their accumulator
            continue
        if (execute(changed, x)[visible] != expected).any():
            return Broken(changed, layer, index, was, code)
    return None
