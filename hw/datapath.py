"""The datapath: array, drain, offset correction and PACT units behind four valid/ready streams."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.config import MAX_WEIGHT_BITS, AcceleratorConfig
from hw.mac_array import MacArray, beat_layout
from hw.offset_correction import OffsetCorrection
from hw.pact_unit import PactUnit
from hw.ram import Ram

__all__ = ["Datapath", "constants_layout", "result_layout"]


def constants_layout(config: AcceleratorConfig) -> data.StructLayout:
    """One record of requantization constants: what a row's output channel needs in one tile, least significant first.

    * ``multiplier``, ``skip_multiplier``, ``bias``, ``shift``: M, M_skip, B and S of the channel.
    * ``output_bits``: k; 0: the accumulator itself leaves (then M = 1 and B = 0).
    * ``weight_bits``: w, 1 to 16; ``odd``: the weights are on the odd grid, not two's complement.
    * ``use_skip``: the tile has a residual operand.

    The last four are the tile's, the same in all of its records.
    """
    return data.StructLayout(
        {
            "multiplier": signed(config.multiplier_bits),
            "skip_multiplier": signed(config.skip_multiplier_bits),
            "bias": signed(config.bias_bits),
            "shift": unsigned(config.max_shift.bit_length()),
            "output_bits": unsigned(config.max_output_bits.bit_length()),
            "weight_bits": unsigned(MAX_WEIGHT_BITS.bit_length()),
            "odd": 1,
            "use_skip": 1,
        }
    )


def result_layout(config: AcceleratorConfig) -> data.StructLayout:
    """One word of results, least significant field first.

    * ``values``: codes, zero-extended, or accumulators in two's complement; lanes beyond the last row mean nothing.
    * ``last``: the last word of its position.
    """
    return data.StructLayout({"values": data.ArrayLayout(config.acc_bits, config.requant_lanes), "last": 1})


class Datapath(wiring.Component):
    """Beats in, codes out: :class:`~hw.mac_array.MacArray`, drain, offset correction, PACT units.

    A *position* is one output pixel of ``rows`` output channels: its beats, from ``first`` to ``last``, digit pairs in
    descending order of significance (see :class:`~hw.mac_array.MacArray`). A *tile* is a run of positions with the
    same output channels, the last of them flagged ``tile_last`` (in its last beat). Each tile takes ``rows`` records
    of constants, row 0 first, and each position gives ``groups = ceil(rows / requant_lanes)`` words of results, row 0
    in the lowest lane of the first. With ``use_skip`` it takes as many words of the residual operand, in the same
    order.

    The streams are independent: what is not there yet is waited for, and each may be ahead of the others, constants by
    two tiles (the one that drains and the next) and beats by two positions (one in the drain, one in the accumulators).
    A result word that is not taken holds the drain, and a drain that has not finished keeps ``i_beat`` from being ready
    where the next beat would overwrite a finished position. Nothing is lost. Cycles without a beat send the array a
    word of zeros.

    Rate, when no stream is stalled: one beat per cycle, and a position drains while the next one accumulates. In a run
    of positions of n beats each takes n cycles if n is at least ``groups + array_latency - 1``; shorter ones take
    ``max(groups, (n + groups + array_latency - 1) / 2)`` on the average, since a beat is not taken before it is certain
    that the drain is free for the position that it overwrites. Latency: the first result word of a position is valid
    ``latency`` cycles after its last beat's transfer, if constants, residual operand and drain do not keep it.
    ``i_beat.ready`` and ``i_skip.ready`` follow ``o_result.ready`` and ``i_skip.valid`` in the same cycle; no ``valid``
    depends on a ``ready``.

    Parameters
    ----------
    config : :class:`~hw.config.AcceleratorConfig`
        Its geometry and widths.

    Attributes
    ----------
    groups : :class:`int`
        Result words per position.
    array_latency : :class:`int`
        Of the array: 2, or 3 with its pipeline register.
    latency : :class:`int`
        ``array_latency`` + capture, correction and the PACT unit's latency.

    Members
    -------
    i_beat : ``In(stream.Signature(beat_layout(...)))``
        Beats; see :func:`~hw.mac_array.beat_layout`.
    i_constants : ``In(stream.Signature(constants_layout(config)))``
        Requantization constants.
    i_skip : ``In(stream.Signature(data.ArrayLayout(max_output_bits, requant_lanes)))``
        Codes of the residual operand.
    o_result : ``Out(stream.Signature(result_layout(config)))``
        Results.

    Raises
    ------
    :class:`TypeError`
        ``config`` is not an :class:`~hw.config.AcceleratorConfig`.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"Configuration must be an AcceleratorConfig, not {config!r}")
        self.config = config
        self.groups = -(-config.rows // config.requant_lanes)
        self._array = MacArray(
            rows=config.rows,
            lanes=config.lanes,
            digit_bits=config.digit_bits,
            acc_bits=config.acc_bits,
            drain_rows=config.requant_lanes,
        )
        self._units = [
            PactUnit(
                acc_bits=config.acc_bits,
                multiplier_bits=config.multiplier_bits,
                bias_bits=config.bias_bits,
                max_shift=config.max_shift,
                max_output_bits=config.max_output_bits,
                skip_bits=config.max_output_bits,
                skip_multiplier_bits=config.skip_multiplier_bits,
                accumulator_out=True,
            )
            for _ in range(config.requant_lanes)
        ]
        self.array_latency = self._array.latency
        self.latency = self.array_latency + 2 + self._units[0].latency
        beat = beat_layout(rows=config.rows, lanes=config.lanes, digit_bits=config.digit_bits)
        skip = data.ArrayLayout(config.max_output_bits, config.requant_lanes)
        super().__init__(
            {
                "i_beat": In(stream.Signature(beat)),
                "i_constants": In(stream.Signature(constants_layout(config))),
                "i_skip": In(stream.Signature(skip)),
                "o_result": Out(stream.Signature(result_layout(config))),
            }
        )

    def elaborate(self, platform) -> Module:
        config = self.config
        m = Module()
        m.submodules.array = array = self._array
        m.submodules.constants = constants = _ConstantsBanks(config, groups=self.groups)
        m.submodules.offset_correction = correction = OffsetCorrection(
            acc_bits=config.acc_bits, lanes=config.requant_lanes
        )
        wiring.connect(m, wiring.flipped(self.i_constants), constants.i)

        issue = Signal()
        capture = Signal()
        draining = Signal()
        draining_next = Signal()
        group = Signal(range(max(2, self.groups)))
        last_group = Signal()
        drained_tile_last = Signal()

        # Beats. The array cannot be held: a beat may only be taken if the position that it will overwrite is certain
        # to have left. That is so if none is on its way, or one that will find the drain free the moment it is done.
        beat = self.i_beat
        m.d.comb += [array.i.payload.eq(beat.payload), array.i.valid.eq(beat.valid & beat.ready)]
        taken = Cat(array.i.valid & beat.payload.last, beat.payload.tile_last)
        on_the_way = []
        for cycle in range(1, array.latency):
            stage = Signal(2, name=f"last_{cycle}")
            m.d.sync += stage.eq(taken)
            on_the_way.append(stage[0])
            taken = stage
        finished_tile_last = Signal()
        with m.If(taken[0]):
            m.d.sync += finished_tile_last.eq(taken[1])
        waiting = Signal()
        m.d.comb += waiting.eq(array.complete & ~capture)
        uncaptured = sum(on_the_way, start=waiting)
        m.d.comb += beat.ready.eq((uncaptured == 0) | ((uncaptured == 1) & ~draining_next))

        # Drain. A group of rows is issued when its constants and its residual operand are there and the next stage is
        # free; the last group may go in the cycle in which the next position is captured.
        m.d.comb += [
            last_group.eq(group == self.groups - 1),
            capture.eq(array.complete & (~draining | (issue & last_group))),
            draining_next.eq(capture | (draining & ~(issue & last_group))),
            array.capture.eq(capture),
            array.advance.eq(issue),
        ]
        m.d.sync += draining.eq(draining_next)
        with m.If(capture):
            m.d.sync += drained_tile_last.eq(finished_tile_last)
        with m.If(issue):
            m.d.sync += group.eq(Mux(last_group, 0, group + 1))

        corrected_valid = Signal()
        corrected_ready = Signal()
        m.d.comb += [
            issue.eq(
                draining
                & constants.ready
                & (self.i_skip.valid | ~constants.use_skip)
                & (corrected_ready | ~corrected_valid)
            ),
            self.i_skip.ready.eq(issue & constants.use_skip),
            constants.group.eq(group),
            constants.read.eq(issue),
            constants.release.eq(issue & last_group & drained_tile_last),
        ]

        # Correction: one cycle, in which the constants are read.
        m.d.comb += [
            correction.i_rows.eq(array.o_rows),
            correction.i_ones.eq(array.o_ones),
            correction.weight_bits.eq(constants.weight_bits),
            correction.odd.eq(constants.odd),
        ]
        corrected = Signal(data.ArrayLayout(signed(config.acc_bits), config.requant_lanes), reset_less=True)
        skip = Signal(self.i_skip.payload.shape(), reset_less=True)
        output_bits = Signal(config.max_output_bits.bit_length(), reset_less=True)
        last = Signal(reset_less=True)
        with m.If(issue):
            m.d.sync += [
                corrected.eq(correction.o),
                skip.eq(Mux(constants.use_skip, self.i_skip.payload.as_value(), 0)),
                output_bits.eq(constants.output_bits),
                last.eq(last_group),
            ]
        with m.If(issue):
            m.d.sync += corrected_valid.eq(1)
        with m.Elif(corrected_ready):
            m.d.sync += corrected_valid.eq(0)

        # PACT units, in lockstep, and the word's `last` beside them.
        result = self.o_result
        for lane, unit in enumerate(self._units):
            m.submodules[f"pact_unit_{lane}"] = unit
            record = constants.o[lane]
            m.d.comb += [
                unit.i.valid.eq(corrected_valid),
                unit.i.payload.acc.eq(corrected[lane]),
                unit.i.payload.multiplier.eq(record.multiplier),
                unit.i.payload.bias.eq(record.bias),
                unit.i.payload.shift.eq(record.shift),
                unit.i.payload.output_bits.eq(output_bits),
                unit.i.payload.skip.eq(skip[lane]),
                unit.i.payload.skip_multiplier.eq(record.skip_multiplier),
                unit.o.ready.eq(result.ready),
                result.payload.values[lane].eq(unit.o.payload),
            ]
            if lane == 0:
                m.d.comb += [corrected_ready.eq(unit.i.ready), result.valid.eq(unit.o.valid)]
        for cycle in range(self._units[0].latency):
            delayed = Signal(name=f"result_last_{cycle}", reset_less=True)
            with m.If(corrected_ready):
                m.d.sync += delayed.eq(last)
            last = delayed
        m.d.comb += result.payload.last.eq(last)
        return m


class _ConstantsBanks(wiring.Component):
    """Two banks of requantization constants: one is read while the other is loaded.

    Parameters
    ----------
    config : :class:`~hw.config.AcceleratorConfig`
        Its widths.
    groups : :class:`int`
        Words per bank, of ``requant_lanes`` records.

    Members
    -------
    i : ``In(stream.Signature(constants_layout(config)))``
        Records, ``rows`` per bank; ready while a bank is free.
    ready : ``Out(1)``
        The bank to read is loaded; ``output_bits``, ``weight_bits``, ``odd`` and ``use_skip`` are its tile's.
    group : ``In(range(max(2, groups)))``, ``read`` : ``In(1)``
        Read a word: ``o`` has it from the next cycle until the next read.
    release : ``In(1)``
        This read is the bank's last.
    o : ``Out(data.ArrayLayout({...}, requant_lanes))``
        ``multiplier``, ``skip_multiplier``, ``bias``, ``shift`` per lane; the last row's in lanes that no row has.
    """

    def __init__(self, config: AcceleratorConfig, *, groups: int) -> None:
        self.config = config
        self.groups = groups
        layout = constants_layout(config)
        self._tile_fields = ("output_bits", "weight_bits", "odd", "use_skip")
        self._record = data.StructLayout({name: field.shape for name, field in layout if name not in self._tile_fields})
        super().__init__(
            {
                "i": In(stream.Signature(layout)),
                "ready": Out(1),
                "group": In(range(max(2, groups))),
                "read": In(1),
                "release": In(1),
                "o": Out(data.ArrayLayout(self._record, config.requant_lanes)),
                **{name: Out(layout[name].shape) for name in self._tile_fields},
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        rows, lanes = self.config.rows, self.config.requant_lanes
        depth = 2 << ceil_log2(self.groups)
        m.submodules.records = records = Ram(lane_bits=self._record.size, lanes=lanes, depth=depth)
        write, read = records.write, records.read[0]
        tile = data.StructLayout({name: self.i.payload.shape()[name].shape for name in self._tile_fields})
        tiles = [Signal(tile, name=f"tile_{bank}") for bank in range(2)]
        full = Signal(2)
        write_bank = Signal()
        read_bank = Signal()
        # Of at least one bit, since Verilog has no vectors without bits.
        row = Signal(range(max(2, rows)))
        write_group = Signal(range(max(2, self.groups)))
        write_lane = Signal(range(max(2, lanes)))

        def address(bank: Value, group: Value) -> Value:
            return Cat(group, bank) if self.groups > 1 else bank

        m.d.comb += [
            self.i.ready.eq(~full.bit_select(write_bank, 1)),
            write.addr.eq(address(write_bank, write_group)),
            # All lanes from this one up, which later records overwrite: no lane is left without a value.
            write.en.eq(Mux(self.i.valid & self.i.ready, ((1 << lanes) - 1) << write_lane, 0)),
        ]
        record = Signal(self._record)
        m.d.comb += [record[name].eq(self.i.payload[name]) for name, _ in self._record]
        m.d.comb += write.data.eq(record.as_value().replicate(lanes))
        with m.If(self.i.valid & self.i.ready):
            for bank in range(2):
                with m.If(write_bank == bank):
                    m.d.sync += [tiles[bank][name].eq(self.i.payload[name]) for name in self._tile_fields]
            m.d.sync += [row.eq(row + 1), write_lane.eq(write_lane + 1)]
            with m.If(write_lane == lanes - 1):
                m.d.sync += [write_lane.eq(0), write_group.eq(write_group + 1)]
            with m.If(row == rows - 1):
                m.d.sync += [
                    row.eq(0),
                    write_lane.eq(0),
                    write_group.eq(0),
                    write_bank.eq(~write_bank),
                    full.bit_select(write_bank, 1).eq(1),
                ]
        with m.If(self.release):
            m.d.sync += [read_bank.eq(~read_bank), full.bit_select(read_bank, 1).eq(0)]

        m.d.comb += [
            self.ready.eq(full.bit_select(read_bank, 1)),
            read.addr.eq(address(read_bank, self.group)),
            read.en.eq(self.read),
            self.o.eq(read.data),
        ]
        for name in self._tile_fields:
            m.d.comb += getattr(self, name).eq(Mux(read_bank, tiles[1][name], tiles[0][name]))
        return m
