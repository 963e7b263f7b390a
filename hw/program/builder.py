"""The program builder: an integer network and a configuration become one stream of commands.

:func:`build` decides everything that the hardware does not: which operations are computed together
(:mod:`hw.program.lowering`), where each tensor lies (:mod:`hw.program.buffer_plan`), and the loops and weight words of
every tile (:mod:`hw.program.tiles`). A :class:`Program` turns frames of codes into the packets of the input stream, and
the packets of the output stream back into tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from golden.execute import check_codes
from golden.network import IntegerNetwork, Kind, Tensor
from hw.config import AcceleratorConfig, UnsupportedNetworkError
from hw.program.buffer_plan import Lifetime, Region, place
from hw.program.lowering import Layer, lower, pack_frame, packable, packed
from hw.program.tiles import Command, Tile, compute, digits, tensor_words, tiles
from hw.program.words import cut, join, pack_digits, pack_record, unpack_digits
from hw.program_format import COMMANDS, HEADER, MAGIC, VERSION, Opcode, constants_fields, fingerprint
from hw.registers import LAYERS

__all__ = ["PlannedLayer", "Program", "build"]


@dataclass(frozen=True)
class PlannedLayer:
    """What was decided about a layer.

    Parameters
    ----------
    name : :class:`str`
        The layer's.
    operations : tuple of :class:`str`
        Names of the network's operations that it computes: a convolution and the max pool taken into it, say.
    tensor : :class:`str`
        What it writes.
    tiles, positions : :class:`int`
        COMPUTE commands, and positions of each.
    beats : :class:`int`
        Words that the array takes for it.
    macs : :class:`int`
        Digit products of the network's own channels, weights and codes, border padding counted; what max pools and
        sums do on the way is none.
    weight_words : :class:`int`
        Weight words of all rows and tiles.
    packed : :class:`bool`
        The host lays the convolution's windows along the channels.
    mark : :class:`int` or ``None``
        Index in the layer table of the cycle in which its last result is written; ``None``: the table is too short.
    """

    name: str
    operations: tuple[str, ...]
    tensor: str
    tiles: int
    positions: int
    beats: int
    macs: int
    weight_words: int
    packed: bool
    mark: int | None


@dataclass(frozen=True, eq=False)
class Program:
    """A network's program for one configuration; made by :func:`build`.

    Parameters
    ----------
    network, config
        What is computed, and on what.
    commands : tuple of :class:`~hw.program.tiles.Command`
        In order, END last.
    layers : tuple of :class:`PlannedLayer`
        In order.
    regions : tuple of :class:`~hw.program.buffer_plan.Region`
        The buffer plan. Step 0 is the LOAD, step n the n-th layer, the one after all layers the last STORE.
    outputs : tuple of (tensor name, words)
        What the packets of the output stream hold, in order.
    packed : :class:`~hw.program.lowering.Layer` or ``None``
        The first layer, if the host lays its windows along the channels.
    """

    network: IntegerNetwork
    config: AcceleratorConfig
    commands: tuple[Command, ...]
    layers: tuple[PlannedLayer, ...]
    regions: tuple[Region, ...]
    outputs: tuple[tuple[str, int], ...]
    packed: Layer | None

    def words(self) -> list[int]:
        """The words of the program stream, one packet."""
        return list(self._words)

    @cached_property
    def _words(self) -> list[int]:
        width = self.config.stream_bits
        header = {"magic": MAGIC, "version": VERSION, "fingerprint": fingerprint(self.config)}
        words = pack_record(HEADER, header, width)
        record = constants_fields(self.config)
        for command in self.commands:
            words += pack_record(COMMANDS[command.opcode], command.fields | {"opcode": command.opcode}, width)
            for multiplier, skip_multiplier, bias, shift in command.constants:
                values: dict[str, int] = {}
                for name, value in (
                    ("multiplier", multiplier),
                    ("skip_multiplier", skip_multiplier),
                    ("bias", bias),
                    ("shift", shift),
                ):
                    values |= {name: value, f"{name}_low": value & 0xFFFF_FFFF, f"{name}_high": value >> 32}
                words += pack_record(record, values, width)
            if command.weights is not None:
                words += pack_digits(command.weights.reshape(-1, self.config.lanes), self.config.digit_bits)
        return words

    @property
    def source(self) -> Tensor:
        """The network's input as it lies in the activation buffer."""
        return self.network.input if self.packed is None else self.packed.source

    def inputs(self, frame: np.ndarray) -> list[list[int]]:
        """The packets of the input stream for one frame: the words of each LOAD, ``tlast`` on the last of each.

        Parameters
        ----------
        frame : unsigned array (C, H, W)
            Codes of the network's input.

        Raises
        ------
        :class:`~golden.network.NetworkError`
            The frame is not what the network's input takes.
        """
        codes = check_codes(np.asarray(frame)[None], self.network.input)[0]
        if self.packed is not None:
            codes = pack_frame(codes, self.packed, self.network.input)
        return [pack_tensor(codes, self.source, self.config)]

    def encode(self, tensors: Mapping[str, np.ndarray]) -> list[list[int]]:
        """The packets that the output stream must bring: what :meth:`decode` takes apart.

        Parameters
        ----------
        tensors : :class:`dict`
            By name, (C, H, W): at least those of :attr:`outputs`.
        """
        return [pack_tensor(tensors[name], self.network.tensor(name), self.config) for name, _ in self.outputs]

    def decode(self, packets: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
        """The tensors out of the packets of the output stream.

        Returns
        -------
        :class:`dict`
            By name, in the order of :attr:`outputs`: int64 (C, H, W).

        Raises
        ------
        :class:`ValueError`
            There are more or fewer packets, or a packet has more or fewer words, than :attr:`outputs` says.
        """
        if len(packets) != len(self.outputs):
            raise ValueError(
                f"Outputs of network {self.network.name!r} must be {len(self.outputs)} packets, not {len(packets)}"
            )
        tensors = {}
        for packet, (name, words) in zip(packets, self.outputs, strict=True):
            if len(packet) != words:
                raise ValueError(f"Packet of tensor {name!r} must have {words} words, not {len(packet)}")
            tensors[name] = unpack_tensor(packet, self.network.tensor(name), self.config)
        return tensors


def pack_tensor(codes: np.ndarray, tensor: Tensor, config: AcceleratorConfig) -> list[int]:
    """The words of a tensor (C, H, W) in the order of its addresses."""
    channels, height, width = tensor.shape
    lanes = config.lanes
    laid = np.zeros((height, width, -(-channels // lanes) * lanes), np.int64)
    laid[..., :channels] = codes.transpose(1, 2, 0)
    split = cut(laid.reshape(height * width, -1, lanes), digits(tensor, config), config.digit_bits)
    return pack_digits(np.moveaxis(split, -1, 2).reshape(-1, lanes), config.digit_bits)


def unpack_tensor(words: Sequence[int], tensor: Tensor, config: AcceleratorConfig) -> np.ndarray:
    """The tensor, int64 (C, H, W), whose words these are."""
    channels, height, width = tensor.shape
    count = digits(tensor, config)
    split = unpack_digits(words, config.lanes, config.digit_bits).reshape(height, width, -1, count, config.lanes)
    codes = join(np.moveaxis(split, 3, -1), config.digit_bits).reshape(height, width, -1)[..., :channels]
    if tensor.kind is Kind.ACCUMULATOR:
        unused = 64 - min(tensor.bits, config.acc_bits)
        codes = codes << unused >> unused
    return np.ascontiguousarray(codes.transpose(2, 0, 1))


def build(network: IntegerNetwork, config: AcceleratorConfig, *, trace: bool = False) -> Program:
    """Make the program of a network.

    Parameters
    ----------
    trace : :class:`bool`
        Store every layer's output right after the layer, not the network's output only.

    Raises
    ------
    :class:`~hw.config.UnsupportedNetworkError`
        The hardware cannot compute it; the sentence names the layer, what it needs and what there is.
    :class:`ValueError`
        The configuration is not one of an accelerator.
    """
    config.check_accelerator()
    config.check(network)
    layers = lower(network)
    for layer in layers:
        config.check_layer(layer.conv, layer.source, layer.output, layer.skip)
    if packable(layers, network):
        first = packed(layers[0])
        if _cycles(first, config) < _cycles(layers[0], config):
            try:
                return _build(network, config, [first, *layers[1:]], trace)
            except UnsupportedNetworkError:
                pass  # A packed input may be too large for the buffer.
    return _build(network, config, layers, trace)


def _cycles(layer: Layer, config: AcceleratorConfig) -> int:
    """About how many cycles the first layer takes, its LOAD included; :mod:`hw.program.cycles` has the exact number."""
    groups = config.rows // config.requant_lanes
    window = groups * (layer.window - 1 + -(-digits(layer.output, config) // 2))
    beats = sum(max(tile.position_beats * layer.window, window) for tile in tiles(layer, config))
    return beats * layer.positions // layer.window + tensor_words(layer.source, config)


def _build(network: IntegerNetwork, config: AcceleratorConfig, layers: list[Layer], trace: bool) -> Program:
    cut_layers = [(layer, tiles(layer, config)) for layer in layers]
    for _, parts in cut_layers:
        for tile in parts:
            tile.check()
    source = layers[0].source if layers[0].unpacked is not None else network.input
    regions = _plan(source, layers, config)
    addresses = {region.lifetime.tensor: region.address for region in regions}
    marks = _Marks()

    def move(opcode: Opcode, tensor: Tensor) -> Command:
        fields = {
            "fence": 1,
            "mark": int(marks.take() is not None),
            "address": addresses[tensor.name],
            "words_last": tensor_words(tensor, config) - 1,
        }
        return Command(opcode, fields, note=tensor.name)

    commands = [move(Opcode.LOAD, source)]
    planned: list[PlannedLayer] = []
    outputs: list[Tensor] = []
    for layer, parts in cut_layers:
        mark = marks.take()
        commands += [
            compute(tile, addresses, fence=tile is parts[0], mark=mark is not None and tile is parts[-1])
            for tile in parts
        ]
        planned.append(_planned(layer, parts, mark))
        if trace or layer is layers[-1]:
            commands.append(move(Opcode.STORE, layer.output))
            outputs.append(layer.output)
    commands.append(Command(Opcode.END, {}))
    return Program(
        network=network,
        config=config,
        commands=tuple(commands),
        layers=tuple(planned),
        regions=tuple(regions),
        outputs=tuple((tensor.name, tensor_words(tensor, config)) for tensor in outputs),
        packed=layers[0] if layers[0].unpacked is not None else None,
    )


class _Marks:
    """Hands out the entries of the layer table; commands beyond its end have no mark."""

    def __init__(self) -> None:
        self._next = 0

    def take(self) -> int | None:
        if self._next == LAYERS:
            return None
        self._next += 1
        return self._next - 1


def _planned(layer: Layer, parts: list[Tile], mark: int | None) -> PlannedLayer:
    conv, config = layer.conv, parts[0].config
    pairs = -(-conv.bits // config.digit_bits) * parts[0].activation_digits
    height, width = layer.kernel
    products = conv.codes.shape[0] * conv.codes.shape[1] * height * width * layer.positions
    return PlannedLayer(
        name=layer.name,
        operations=layer.operations,
        tensor=layer.output.name,
        tiles=len(parts),
        positions=layer.positions,
        beats=sum(tile.beats for tile in parts),
        macs=0 if layer.passes else products * pairs,
        weight_words=sum(len(tile.channels) * tile.weight_words for tile in parts),
        packed=layer.unpacked is not None,
        mark=mark,
    )


def _plan(source: Tensor, layers: list[Layer], config: AcceleratorConfig) -> list[Region]:
    """Addresses of all tensors.

    Raises
    ------
    :class:`~hw.config.UnsupportedNetworkError`
        They do not fit; the sentence names the layer at which most words are in use.
    """
    lives = {source.name: Lifetime(source.name, tensor_words(source, config), 0, 0)}
    for step, layer in enumerate(layers, start=1):
        for name in layer.inputs:
            lives[name] = replace(lives[name], last=step)
        output = layer.output
        lives[output.name] = Lifetime(output.name, tensor_words(output, config), step, step)
    # The network's output lives until it is stored.
    final = layers[-1].output.name
    lives[final] = replace(lives[final], last=len(layers) + 1)
    regions = place(list(lives.values()))
    ends = [
        max(region.end for region in regions if region.lifetime.first <= step <= region.lifetime.last)
        for step in range(1, len(layers) + 1)
    ]
    worst = int(np.argmax(ends))
    if ends[worst] > config.activation_depth:
        raise UnsupportedNetworkError(
            f"Layer {layers[worst].name!r} needs {ends[worst]} words of the activation buffer, "
            f"but configuration {config.name!r} has activation_depth {config.activation_depth}"
        )
    return regions
