"""The core: commands, constants, weights and input in, output out. Dispatches commands in order and joins the rest."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.activation_buffer import ActivationBuffer
from hw.axi import word_layout
from hw.command import command_layout
from hw.config import AcceleratorConfig
from hw.datapath import Datapath, constants_layout
from hw.load import Load
from hw.program_format import ERROR_BITS, Error, Opcode
from hw.result_writer import ResultWriter
from hw.sequencer import Sequencer
from hw.skip_reader import SkipReader
from hw.store import Store
from hw.weight_buffer import WeightBuffer, weights_layout

__all__ = ["Core"]


class Core(wiring.Component):
    """Executes commands in order: LOAD, COMPUTE, STORE, END.

    A COMPUTE is taken when the sequencer, the result writer and, with a residual operand, the skip reader can take it,
    with ``fence`` not before everything has finished: the tile before may still drain while this one begins. LOAD,
    STORE and END always wait until everything has finished.

    Timing, c the cycle in which a command is taken: a COMPUTE's first beat is valid in c + 2 (:class:`Sequencer`), a
    LOAD's first word is taken in c + 1 (:class:`Load`), a STORE's first word is valid in c + 2 (:class:`Store`);
    ``o_done`` is high in c of an END. Everything has finished from the cycle after the one in which the last result
    word, input word or output word was taken.

    Parameters
    ----------
    config : :class:`~hw.config.AcceleratorConfig`
        Geometry, widths and depths.

    Members
    -------
    i_command : ``In(stream.Signature(command_layout(config)))``
        Commands; a COMPUTE's weights have been handed over before.
    i_constants : ``In(stream.Signature(constants_layout(config)))``
        ``rows`` records per tile.
    i_weights : ``In(stream.Signature(weights_layout(config)))``
        Weight words, ``last`` with the last one of a tile.
    i_input, o_output : streams of ``word_layout(lanes * digit_bits)``
        Words of LOADs and STOREs; ``last`` ends a packet. A word that is offered stays until it is taken, errors or
        not.
    o_done : ``Out(1)``
        Strobe: END was executed.
    o_mark : ``Out(1)``
        Strobe: a command with ``mark`` has finished in this cycle (its last result or word was taken).
    o_error : ``Out(Error)``
        Level: why the core has stopped, until reset; 0 if it has not. Then nothing is read or written any more, and
        input words are taken and thrown away.
    o_beat : ``Out(1)``
        The array takes a beat in this cycle.
    o_wait_input, o_wait_output : ``Out(1)``
        In this cycle a LOAD waits for a word, a STORE for its word to be taken.

    Raises
    ------
    :class:`ValueError`
        ``requant_lanes`` does not divide rows and lanes, or an activation word does not fit a stream word.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        config.check_accelerator()
        self.config = config
        words = stream.Signature(word_layout(config.lanes * config.digit_bits))
        super().__init__(
            {
                "i_command": In(stream.Signature(command_layout(config))),
                "i_constants": In(stream.Signature(constants_layout(config))),
                "i_weights": In(stream.Signature(weights_layout(config))),
                "i_input": In(words),
                "o_output": Out(words),
                "o_done": Out(1),
                "o_mark": Out(1),
                "o_error": Out(ERROR_BITS),
                "o_beat": Out(1),
                "o_wait_input": Out(1),
                "o_wait_output": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        config = self.config
        slots = config.lanes // config.requant_lanes
        m = Module()
        m.submodules.datapath = datapath = Datapath(config)
        m.submodules.weight_buffer = weights = WeightBuffer(config)
        m.submodules.activation_buffer = activations = ActivationBuffer(config)
        m.submodules.sequencer = sequencer = Sequencer(config)
        m.submodules.skip_reader = skip = SkipReader(config)
        m.submodules.result_writer = writer = ResultWriter(config)
        m.submodules.load = load = Load(config)
        m.submodules.store = store = Store(config)

        # Streams.
        wiring.connect(m, wiring.flipped(self.i_constants), datapath.i_constants)
        wiring.connect(m, wiring.flipped(self.i_weights), weights.i)
        wiring.connect(m, wiring.flipped(self.i_input), load.i_input)
        wiring.connect(m, store.o_output, wiring.flipped(self.o_output))
        wiring.connect(m, sequencer.o_beat, datapath.i_beat)
        wiring.connect(m, skip.o, datapath.i_skip)
        wiring.connect(m, datapath.o_result, writer.i_result)
        wiring.connect(m, skip.read, activations.read_two)

        # Memories. LOAD and STORE are alone when they run.
        m.d.comb += [
            weights.address.eq(sequencer.weights.addr),
            weights.enable.eq(sequencer.weights.en),
            weights.release.eq(sequencer.o_release),
            sequencer.weights.data.eq(weights.words),
            activations.read.addr.eq(Mux(store.o_busy, store.read.addr, sequencer.activations.addr)),
            activations.read.en.eq(store.read.en | sequencer.activations.en),
            sequencer.activations.data.eq(activations.read.data),
            store.read.data.eq(activations.read.data),
            activations.write.addr.eq(Mux(load.o_busy, load.write.addr, writer.write.addr)),
            activations.write.data[0].eq(Mux(load.o_busy, load.write.data, writer.write.data[0])),
            activations.write.data[1].eq(writer.write.data[1]),
            activations.write.en.eq(load.write.en.replicate(slots) | writer.write.en),
            activations.write.two.eq(writer.write.two & ~load.o_busy),
        ]

        # Dispatch.
        command = self.i_command.payload
        idle = Signal()
        startable = Signal()
        moving = Signal()
        computes = Signal()
        skips = Signal()
        m.d.comb += [
            idle.eq(~(writer.o_busy | load.o_busy | store.o_busy)),
            computes.eq(command.opcode == Opcode.COMPUTE),
            skips.eq(computes & command.use_skip),
            startable.eq(
                sequencer.i_command.ready
                & writer.i_tile.ready
                & (skip.i_tile.ready | ~command.use_skip)
                & ~(load.o_busy | store.o_busy)
                & (idle | ~command.fence)
            ),
            self.i_command.ready.eq(Mux(computes, startable, idle) & (self.o_error == 0)),
            moving.eq(self.i_command.valid & self.i_command.ready),
            sequencer.i_command.payload.eq(command),
            sequencer.i_command.valid.eq(moving & computes),
            writer.i_tile.valid.eq(moving & computes),
            skip.i_tile.valid.eq(moving & skips),
            load.i_command.valid.eq(moving & (command.opcode == Opcode.LOAD)),
            store.i_command.valid.eq(moving & (command.opcode == Opcode.STORE)),
            self.o_done.eq(moving & (command.opcode == Opcode.END)),
        ]
        for unit in (load, store):
            for name in ("address", "words_last", "mark"):
                m.d.comb += getattr(unit.i_command.payload, name).eq(getattr(command, name))
        for unit, kind in ((writer, "output"), (skip, "skip")):
            tile = unit.i_tile.payload
            m.d.comb += [
                tile.address.eq(getattr(command, f"{kind}_address")),
                tile.step.eq(getattr(command, f"{kind}_step")),
                tile.digits_last.eq(getattr(command, f"{kind}_digits_last")),
                tile.slot.eq(command.slot),
                tile.channels.eq(command.channels),
                tile.pixels_last.eq(command.pixels_last),
            ]
        m.d.comb += [
            writer.i_tile.payload.window_last.eq(command.window_last),
            writer.i_tile.payload.pooled.eq(command.window_last != 0),
            writer.i_tile.payload.mark.eq(command.mark),
        ]

        # Errors and events.
        halt = self.o_error != 0
        outside = sequencer.o_address_error | skip.o_address_error | writer.o_address_error | store.o_address_error
        with m.If(~halt):
            m.d.sync += self.o_error.eq(Mux(outside, Error.ADDRESS, load.o_error))
        for unit in (sequencer, skip, writer, load, store):
            m.d.comb += unit.i_halt.eq(halt)
        m.d.comb += [
            self.o_mark.eq(writer.o_mark | load.o_mark | store.o_mark),
            self.o_beat.eq(datapath.i_beat.valid & datapath.i_beat.ready),
            self.o_wait_input.eq(load.o_busy & ~self.i_input.valid & ~halt),
            self.o_wait_output.eq(self.o_output.valid & ~self.o_output.ready),
        ]
        return m
