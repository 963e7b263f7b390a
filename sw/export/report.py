"""What an export says: per operation the bits that the hardware must bring, and the agreement with the model."""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import rich.box
import rich.table

__all__ = ["ExportError", "ExportReport", "LayerReport"]


class ExportError(ValueError):
    """A model that cannot be exported; one sentence that names the node and says what must be changed."""


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """What one operation of the integer network needs, and how it agrees with the float model.

    Members
    -------
    name : :class:`str`
        Of the operation; ``tensor`` is the name of what it makes.
    shape : (C, H, W)
        Of its output.
    weight_bits, input_bits, output_bits : :class:`int` or ``None``
        ``None`` where there are no weights, and for the output of a layer that gives accumulators.
    accumulator_bits : :class:`int` or ``None``
        Signed width that holds every sum the actual weights can reach.
    multiplier_bits, skip_multiplier_bits, bias_bits, shift : :class:`int` or ``None``
        Widths (two's complement) and largest shift of the solved constants; ``None`` where there are none.
    mismatches : :class:`int`
        (accumulator, skip) pairs whose code is not the exact one: 0 unless limits were given and were too narrow.
    compared : :class:`int`
        Elements of the sample's output.
    ties : :class:`int`
        Elements whose real value lies exactly between two codes.
    float64_differences, float32_differences : :class:`int`
        Elements that differ from the model's own forward, in float64 with frozen integer weights and in float32 as
        trained. Each forward runs from the input on, so a difference may be inherited.
    """

    name: str
    tensor: str
    shape: tuple[int, int, int]
    weight_bits: int | None = None
    input_bits: int | None = None
    output_bits: int | None = None
    accumulator_bits: int | None = None
    multiplier_bits: int | None = None
    skip_multiplier_bits: int | None = None
    bias_bits: int | None = None
    shift: int | None = None
    mismatches: int = 0
    compared: int = 0
    ties: int = 0
    float64_differences: int = 0
    float32_differences: int = 0


@dataclass(frozen=True)
class ExportReport:
    """One :class:`LayerReport` per operation, in the network's order."""

    network: str
    layers: tuple[LayerReport, ...]

    def table(self) -> rich.table.Table:
        """The report for people: bits of weights, input and output codes, accumulator, M, M_skip and B, and so on.

        Fits 80 columns with layer names of up to 17 characters.
        """
        titles = ("layer", "W", "in", "out", "acc", "M", "Ms", "B", "S", "lost", "ties", "≠ f64", "≠ f32")
        table = rich.table.Table(title=f"{self.network}: bits needed, and agreement on the sample",
                                 box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for title in titles:
            table.add_column(title, justify="left" if title == "layer" else "right", no_wrap=True)
        for layer in self.layers:
            fields = dataclasses.asdict(layer)
            hidden = ("name", "tensor", "shape", "compared")
            cells = [fields[f.name] for f in dataclasses.fields(layer) if f.name not in hidden]
            table.add_row(layer.name, *("" if cell is None else str(cell) for cell in cells))
        return table

    def widths(self) -> dict[str, int]:
        """Over all layers, the widest of each: what one hardware configuration must bring."""
        names = ("accumulator_bits", "multiplier_bits", "skip_multiplier_bits", "bias_bits", "shift")
        return {name: max((getattr(layer, name) or 0 for layer in self.layers), default=0) for name in names}
