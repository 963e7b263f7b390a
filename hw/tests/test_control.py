# amaranth: UnusedElaboratable=no
"""Control: the rules of AXI4-Lite at its corners, every register, counters, layer table, interrupt, soft reset."""

import random

import pytest
from amaranth.sim import Simulator

from hw import control, registers
from hw.axi import OKAY, SLVERR
from hw.config import PRESETS
from hw.control import Control
from hw.program_format import Error
from hw.registers import LAYERS, identity, register
from hw.tests.lite import Lite

CONFIG = PRESETS["tiny"]
EVENTS = (
    "i_start",
    "i_done",
    "i_mark",
    "i_beat",
    "i_program_wait",
    "i_input_wait",
    "i_output_wait",
    "i_output_taken",
    "i_output_waits",
    "i_fetch_error",
    "i_core_error",
    "i_command",
)
CONTROL = register("CONTROL").offset
STATUS = register("STATUS").offset


def offset(name):
    return register(name).offset


def simulate(bench):
    """Run ``bench(ctx, dut, lite)``."""
    dut = Control(CONFIG)
    port = {name: getattr(dut.axil, name) for name in dut.axil.signature.members}

    async def testbench(ctx):
        await bench(ctx, dut, Lite(port))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


async def cycle(ctx, dut, **events):
    """One cycle with these events."""
    for name, value in events.items():
        ctx.set(getattr(dut, f"i_{name}"), value)
    await ctx.tick()
    for name in events:
        ctx.set(getattr(dut, f"i_{name}"), 0)


def test_identity():
    async def bench(ctx, dut, lite):
        for name, value in identity(CONFIG).items():
            assert await lite.read(ctx, offset(name)) == value, name

    assert identity(CONFIG)["ID"].to_bytes(4, "little") == b"PACT"
    assert identity(CONFIG)["ROWS"] == 4
    simulate(bench)


def test_every_register_is_zero_after_reset():
    async def bench(ctx, dut, lite):
        for item in registers.REGISTERS:
            if item.name not in identity(CONFIG):
                for n in range(item.count):
                    assert await lite.read(ctx, item.offset + 4 * n) == 0, item.name
        assert not ctx.get(dut.o_enable) and not ctx.get(dut.o_interrupt) and not ctx.get(dut.o_error)

    simulate(bench)


def test_unmapped_and_read_only():
    mapped = {item.offset + 4 * n for item in registers.REGISTERS for n in range(item.count)}
    writable = {item.offset for item in registers.REGISTERS if item.writable}
    assert writable == {CONTROL, STATUS}

    async def bench(ctx, dut, lite):
        everything = range(0, 1 << registers.ADDRESS_BITS, 4)
        _, reads = await lite.run(ctx, reads=[address for address in everything if address % 64 in (0, 44, 60)])
        for address, (value, response) in zip((a for a in everything if a % 64 in (0, 44, 60)), reads):
            assert response == (OKAY if address in mapped else SLVERR), hex(address)
            if address not in mapped:
                assert value == 0
        addresses = [*mapped - writable, 0x030, 0x070, 0x3FC, 0x500, 0xFFC]
        responses, _ = await lite.run(ctx, writes=[(address, 0xFFFFFFFF) for address in addresses])
        assert responses == [SLVERR] * len(addresses)
        assert await lite.read(ctx, CONTROL) == 0
        assert await lite.read(ctx, offset("ID")) == identity(CONFIG)["ID"]

    simulate(bench)


def test_strobes_and_low_address_bits():
    async def bench(ctx, dut, lite):
        await lite.write(ctx, CONTROL, 0xFFFFFF01, 0b0001)
        assert await lite.read(ctx, CONTROL) == 0x001
        await lite.write(ctx, CONTROL, 0xFFFFFFFC, 0b0010)
        assert await lite.read(ctx, CONTROL) == 0x301
        await lite.write(ctx, CONTROL, 0x00000000, 0b1100)
        await lite.write(ctx, CONTROL, 0x00000000, 0b0000)
        assert await lite.read(ctx, CONTROL) == 0x301
        assert await lite.read(ctx, CONTROL + 3) == 0x301
        await lite.write(ctx, CONTROL + 2, 0x100)
        assert await lite.read(ctx, CONTROL) == 0x100
        # W1C and W1S bits do nothing where their byte is not strobed.
        await cycle(ctx, dut, done=1)
        await lite.write(ctx, STATUS, 0xFFFFFFFF, 0b1110)
        assert await lite.read(ctx, STATUS) == 0b010
        await lite.write(ctx, STATUS, 0x00000000)
        assert await lite.read(ctx, STATUS) == 0b010
        await lite.write(ctx, STATUS, 0xFFFFFFFF, 0b0001)
        assert await lite.read(ctx, STATUS) == 0
        ctx.set(dut.i_output_waits, 1)
        await lite.write(ctx, CONTROL, 0x2, 0b1110)
        assert await lite.read(ctx, CONTROL) == 0x000

    simulate(bench)


@pytest.mark.parametrize(
    ("delays", "holds"),
    [((0, 0, 0), (0, 0)), ((0, 5, 0), (0, 0)), ((5, 0, 0), (0, 0)), ((0, 0, 0), (9, 12)), ((2, 3, 1), (0, 15))],
    ids=["together", "W after AW", "W before AW", "answers held", "mixed"],
)
def test_channels(delays, holds):
    async def bench(ctx, dut, lite):
        writes = [(CONTROL, 0x301), (0x800, 5), (CONTROL, 0x201)]
        reads = [offset("ID"), 0x7FC, offset("ROWS")]
        responses, answers = await lite.run(ctx, writes=writes, reads=reads, delays=delays, holds=holds)
        assert responses == [OKAY, SLVERR, OKAY]
        assert answers == [(identity(CONFIG)["ID"], OKAY), (0, SLVERR), (4, OKAY)]
        assert await lite.read(ctx, CONTROL) == 0x201

    simulate(bench)


def test_read_and_write_of_one_register_at_once():
    async def bench(ctx, dut, lite):
        # The write is taken in the second cycle of its AWVALID.
        _, ((value, _),) = await lite.run(ctx, writes=[(CONTROL, 0x301)], reads=[CONTROL], delays=(0, 0, 1))
        assert value == 0
        _, ((value, _),) = await lite.run(ctx, writes=[(CONTROL, 0x200)], reads=[CONTROL], delays=(0, 0, 2))
        assert value == 0x200

    simulate(bench)


@pytest.mark.parametrize("seed", range(3))
def test_random_traffic(seed):
    rng = random.Random(seed)

    async def bench(ctx, dut, lite):
        lite.stall, lite.rng = 0.5, rng
        expected = 0
        for _ in range(40):
            strobe = rng.getrandbits(4)
            value = rng.getrandbits(32) & ~2
            mask = sum(0xFF << 8 * n for n in range(4) if strobe >> n & 1) & 0x301
            expected = expected & ~mask | value & mask
            responses, answers = await lite.run(
                ctx, writes=[(CONTROL, value, strobe)] * 2, reads=[offset("FINGERPRINT")] * 3
            )
            assert responses == [OKAY] * 2
            assert answers == [(identity(CONFIG)["FINGERPRINT"], OKAY)] * 3
            assert await lite.read(ctx, CONTROL) == expected

    simulate(bench)


async def counters(ctx, lite):
    names = ("PROGRAM_WAITS", "INPUT_WAITS", "OUTPUT_WAITS", "LAYERS", "PROGRAMS")
    values = {name: await lite.read(ctx, offset(name)) for name in names}
    for name in ("CYCLES", "BEATS"):
        low = await lite.read(ctx, offset(f"{name}_LOW"))
        values[name] = low | await lite.read(ctx, offset(f"{name}_HIGH")) << 32
    return values


def test_counters_and_layer_table():
    async def bench(ctx, dut, lite):
        # Not in a program: nothing counts.
        await cycle(ctx, dut, beat=1, program_wait=1, input_wait=1, output_wait=1, mark=1, output_taken=1)
        assert set((await counters(ctx, lite)).values()) == {0}
        await cycle(ctx, dut, start=1, program_wait=1)  # cycle 1
        await cycle(ctx, dut, program_wait=1)
        await cycle(ctx, dut, beat=1)
        await cycle(ctx, dut, beat=1, mark=1)  # 4
        await cycle(ctx, dut, input_wait=1)
        await cycle(ctx, dut, output_wait=1)
        await cycle(ctx, dut, output_taken=1)  # 7
        await cycle(ctx, dut, output_wait=1)
        await cycle(ctx, dut, output_taken=1, mark=1)  # 9
        await cycle(ctx, dut)
        assert ctx.get(dut.o_interrupt) == 0
        await cycle(ctx, dut, done=1)
        await cycle(ctx, dut, beat=1, program_wait=1, input_wait=1, output_wait=1, mark=1, output_taken=1)
        assert await counters(ctx, lite) == {
            "PROGRAM_WAITS": 2,
            "INPUT_WAITS": 1,
            "OUTPUT_WAITS": 2,
            "LAYERS": 2,
            "PROGRAMS": 1,
            "CYCLES": 9,
            "BEATS": 2,
        }
        _, answers = await lite.run(ctx, reads=[0x400, 0x404, 0x408, 0x4FC])
        assert answers == [(4, OKAY), (9, OKAY), (0, OKAY), (0, OKAY)]
        assert await lite.read(ctx, STATUS) == 0b010
        # The next program begins again.
        await cycle(ctx, dut, start=1)
        assert await lite.read(ctx, STATUS) == 0b011
        assert await lite.read(ctx, 0x400) == 0
        assert set((await counters(ctx, lite)).values()) == {0, 1}

    simulate(bench)


def test_layer_table_is_full():
    async def bench(ctx, dut, lite):
        await cycle(ctx, dut, start=1)
        for _ in range(LAYERS + 3):
            await cycle(ctx, dut, mark=1)
        assert await lite.read(ctx, offset("LAYERS")) == LAYERS
        _, answers = await lite.run(ctx, reads=[offset("LAYER_CYCLES") + 4 * n for n in range(LAYERS)])
        assert answers == [(n + 2, OKAY) for n in range(LAYERS)]

    simulate(bench)


def test_high_half_is_kept(monkeypatch):
    """CYCLES_HIGH is that of the CYCLES_LOW that was read."""
    monkeypatch.setattr(control, "SECOND_CYCLE", 0x12_FFFF_FFFE)

    async def bench(ctx, dut, lite):
        await cycle(ctx, dut, start=1)
        ctx.set(dut.i_output_taken, 1)
        await ctx.tick()
        assert await lite.read(ctx, offset("CYCLES_LOW")) >= 0xFFFF_FFFE
        await ctx.tick().repeat(5)
        assert await lite.read(ctx, offset("CYCLES_HIGH")) == 0x12
        assert await lite.read(ctx, offset("CYCLES_LOW")) < 0x100
        assert await lite.read(ctx, offset("CYCLES_HIGH")) == 0x13

    simulate(bench)


def test_interrupt():
    async def bench(ctx, dut, lite):
        await lite.write(ctx, CONTROL, 0x001)
        await cycle(ctx, dut, start=1)
        await cycle(ctx, dut, done=1)
        assert ctx.get(dut.o_enable) == 1
        assert ctx.get(dut.o_interrupt) == 0
        await lite.write(ctx, CONTROL, 0x101)
        assert ctx.get(dut.o_interrupt) == 1
        await lite.write(ctx, STATUS, 0b010)
        assert ctx.get(dut.o_interrupt) == 0
        ctx.set(dut.i_core_error, Error.ADDRESS)
        await ctx.tick()
        assert ctx.get(dut.o_interrupt) == 0
        await lite.write(ctx, CONTROL, 0x201)
        assert ctx.get(dut.o_interrupt) == 1
        await lite.write(ctx, STATUS, 0b111)
        assert ctx.get(dut.o_interrupt) == 1

    simulate(bench)


@pytest.mark.parametrize("core", [Error.NONE, Error.INPUT_LONG])
@pytest.mark.parametrize("fetch", [Error.NONE, Error.MAGIC])
def test_first_error(core, fetch):
    async def bench(ctx, dut, lite):
        await cycle(ctx, dut, start=1)
        ctx.set(dut.i_core_error, core)
        ctx.set(dut.i_fetch_error, fetch)
        ctx.set(dut.i_command, 5)
        await ctx.tick()
        ctx.set(dut.i_core_error, core or Error.ADDRESS)
        ctx.set(dut.i_command, 9)
        expected = core | 4 << 8 if core else fetch | 5 << 8 if fetch else Error.ADDRESS | 8 << 8
        await ctx.tick()
        assert await lite.read(ctx, offset("ERROR")) == expected
        assert await lite.read(ctx, STATUS) == 0b100
        assert ctx.get(dut.o_error) == 1

    simulate(bench)


def test_soft_reset():
    async def bench(ctx, dut, lite):
        await lite.write(ctx, CONTROL, 0x301)
        await cycle(ctx, dut, start=1)
        await cycle(ctx, dut, beat=1)
        ctx.set(dut.i_core_error, Error.ADDRESS)
        ctx.set(dut.i_command, 3)
        ctx.set(dut.i_output_waits, 1)
        await lite.write(ctx, CONTROL, 0x303)
        assert await lite.read(ctx, CONTROL) == 0x303
        assert await lite.read(ctx, STATUS) == 0b100
        assert ctx.get(dut.o_reset) == 0
        ctx.set(dut.i_output_waits, 0)
        await ctx.tick()
        assert ctx.get(dut.o_reset) == 1
        assert ctx.get(dut.o_error) == 1
        await ctx.tick()
        ctx.set(dut.i_core_error, 0)  # as the core's own reset does
        assert ctx.get(dut.o_reset) == 0
        assert ctx.get(dut.o_error) == 0
        assert await lite.read(ctx, CONTROL) == 0x301
        assert await lite.read(ctx, STATUS) == 0
        assert await lite.read(ctx, offset("ERROR")) == 0
        assert (await counters(ctx, lite))["BEATS"] == 1
        # A running program is forgotten.
        await cycle(ctx, dut, start=1)
        assert await lite.read(ctx, STATUS) == 0b001
        await lite.write(ctx, CONTROL, 0x002)
        await ctx.tick()
        assert await lite.read(ctx, CONTROL) == 0x000
        assert await lite.read(ctx, STATUS) == 0b000

    simulate(bench)
