"""Faults planted in the generated Verilog, to see that the benches find them.

Each mutation edits one module of the text that is simulated; the design itself has no switches for it. A pattern must
match exactly once in its module, so that a mutation cannot quietly stop being one when the generator changes.
``python -m tb.mutations`` runs all of them on Icarus Verilog, prints which bench catches which, and writes
``docs/mutations.md``.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from golden import vectors
from golden.execute import execute
from hw.accelerator import Accelerator
from hw.config import AcceleratorConfig
from hw.datapath import Datapath
from hw.mac_array import MacArray
from hw.pact_unit import PactUnit
from hw.program import Program, build
from hw.program.cycles import predict
from hw.program_format import Error, Opcode
from hw.scaled_array import ScaledArray
from hw.threshold_unit import ThresholdUnit
from hw.verilog import generate
from tb import examples, runner, session
from tb.compare import compare
from tb.layers import simulate_layers

__all__ = ["MUTATIONS", "Mutation", "MutationError", "Outcome", "markdown", "run_all"]

CONFIG = AcceleratorConfig(
    name="mutated",
    rows=4,
    lanes=4,
    digit_bits=2,
    acc_bits=24,
    multiplier_bits=18,
    skip_multiplier_bits=20,
    bias_bits=40,
    max_shift=20,
    max_output_bits=4,
    requant_lanes=2,
    weight_depth=64,
    activation_depth=256,
    stream_bits=128,
)
ACC_BITS, THRESHOLD_BITS = 12, 2
PAGE = runner.ROOT / "docs" / "mutations.md"


class MutationError(RuntimeError):
    """A mutation whose pattern does not match exactly once: the generated text has changed, and it must follow."""


@dataclass(frozen=True)
class Mutation:
    """One planted fault.

    Parameters
    ----------
    name : :class:`str`
        What is wrong, in a few words.
    module : :class:`str`
        The Verilog module that is edited.
    pattern, replacement : :class:`str`
        As of :func:`re.sub`, multi-line.
    designs : tuple of :class:`str`
        Of :func:`designs`, those that hold the module.
    """

    name: str
    module: str
    pattern: str
    replacement: str
    designs: tuple[str, ...]

    def apply(self, verilog: str) -> str:
        """The text with the fault.

        Raises
        ------
        MutationError
            The module does not occur once, or the pattern does not match in it exactly once.
        """
        modules = list(re.finditer(rf"^module {self.module}\(.*?^endmodule$", verilog, re.MULTILINE | re.DOTALL))
        if len(modules) != 1:
            raise MutationError(
                f"Module {self.module} of mutation {self.name!r} must occur once, not {len(modules)} times"
            )
        text, count = re.subn(self.pattern, self.replacement, modules[0][0], flags=re.MULTILINE)
        if count != 1:
            raise MutationError(
                f"Pattern of mutation {self.name!r} must match once in {self.module}, not {count} times"
            )
        return verilog[: modules[0].start()] + text + verilog[modules[0].end() :]


ARRAY = ("MacArray", "Datapath")
PACT = ("PactUnit", "Datapath")
DATAPATH = ("Datapath",)
THRESHOLD = ("ThresholdUnit",)
WHOLE = ("Accelerator",)
SCALED = ("ScaledArray",)
DESIGN_NAMES = ("MacArray", "ScaledArray", "PactUnit", "ThresholdUnit", "Datapath", "Accelerator")
NET = r"(\\\$\d+ )"
"""A name that Yosys made up."""

_top_digits = " + ".join(
    f"(x[{2 * lane + 1}] ? {{ 22'h0, w[{2 * lane + 1}:{2 * lane}] }} : 24'h0)" for lane in range(CONFIG.lanes)
)

MUTATIONS = (
    Mutation(
        "wrong shift: Horner shifts by one bit too many",
        "mac_row",
        r"\{ 1'h0, acc, 2'h0 \}",
        "{ acc, 3'h0 }",
        ARRAY,
    ),
    Mutation(
        "lost carry in a full adder",
        "full_adders_4",
        rf"assign carry = {NET} \| {NET};",
        r"assign carry = \1;",
        ARRAY,
    ),
    Mutation(
        "signed digit: an activation digit's top bit counts negative",
        "dot_product",
        r"assign result = (\{[^;]*\});",
        rf"assign result = \1 - 24'd4 * ({_top_digits});",
        ARRAY,
    ),
    Mutation(
        "stale accumulator: a position does not start from 0",
        "mac_array",
        rf"assign {NET} = i__payload\[\d+\] \| (i__payload\[\d+\]);",
        r"assign \1 = \2;",
        ARRAY,
    ),
    Mutation(
        "swapped rows in the drain",
        "mac_array",
        r"\.i_rows\(\{ (.*), (\S+ ), acc \}\)",
        r".i_rows({ \1, acc, \2 })",
        ARRAY,
    ),
    Mutation("ones row counts every weight digit", "mac_array", r"\.ones\(ones\)", ".ones(1'h1)", ARRAY),
    Mutation(
        "a cycle without a beat adds what is on the wires",
        "mac_array",
        r"\.valid\(i__valid\)",
        ".valid(1'h1)",
        ARRAY,
    ),
    Mutation("the drain does not advance", "mac_array", r"\.advance\(advance\)", ".advance(1'h0)", ARRAY),
    Mutation(
        "off-by-one clip: saturates to 2**k - 2",
        "pact_unit",
        r"\| \{ ((?:saturated, )+)saturated \};",
        r"| { \g<1>1'h0 };",
        PACT,
    ),
    Mutation(
        "wrong shift: S + 1",
        "pact_unit",
        r"(if \(i__ready\) begin\n\s+\S+\s+= shift_1);",
        r"\1 + 1'h1;",
        PACT,
    ),
    Mutation(
        "unsigned accumulator in the multiplication",
        "pact_unit",
        r"\$signed\((i__payload\[\d+:0\])\) \*",
        r"$signed({ 1'h0, \1 }) *",
        PACT,
    ),
    Mutation(
        "overflow above k bits is not clipped",
        "pact_unit",
        rf"assign saturated = {NET} \| {NET};",
        r"assign saturated = \1;",
        PACT,
    ),
    Mutation(
        "the pipeline does not wait for its consumer",
        "pact_unit",
        r"assign i__ready = .*;",
        "assign i__ready = 1'h1;",
        PACT,
    ),
    Mutation(
        "wrong offset: c is twice too large",
        "offset_correction",
        r"weight_bits - 1'h1",
        "weight_bits",
        DATAPATH,
    ),
    Mutation(
        "odd grid: lane 0 is not doubled",
        "offset_correction",
        rf"assign {NET} = odd \? {NET} : (\{{ 1'h0, i_rows\[23:0\] \}});",
        r"assign \1 = \3;",
        DATAPATH,
    ),
    Mutation(
        "constants are overwritten while in use",
        "constants_banks",
        r"assign i__ready = .*;",
        "assign i__ready = 1'h1;",
        DATAPATH,
    ),
    Mutation(
        "constants are released after every position",
        "datapath",
        rf"assign \\release  = {NET} & drained_tile_last;",
        r"assign \\release  = \1;",
        DATAPATH,
    ),
    Mutation(
        "residual operand taken by every layer",
        "datapath",
        r"assign i_skip__ready = issue & use_skip;",
        "assign i_skip__ready = issue;",
        DATAPATH,
    ),
    Mutation(
        "beats overwrite a position that waits",
        "datapath",
        r"assign i_beat__ready = .*;",
        "assign i_beat__ready = 1'h1;",
        DATAPATH,
    ),
    Mutation(
        "last comes one word early",
        "datapath",
        r"= result_last_2;$(?!\n    if)",
        "= result_last_1;",
        DATAPATH,
    ),
    Mutation(
        "off-by-one threshold: > instead of >=",
        "threshold_unit",
        rf"\$signed\(acc\) >= (\$signed\(i__payload\[{2 * ACC_BITS}:{ACC_BITS}\]\))",
        r"$signed(acc) > \1",
        THRESHOLD,
    ),
    Mutation(
        "negative slope ignored",
        "threshold_unit",
        r"assign acc = i__payload\[\d+\] \?",
        "assign acc = 1'h0 ?",
        THRESHOLD,
    ),
    Mutation(
        "off-by-one border: x = width is inside the map",
        "sequencer",
        r"\$signed\(x\) < \$signed",
        "$signed(x) <= $signed",
        WHOLE,
    ),
    Mutation(
        "padding is 0, not the zero point's code",
        "sequencer",
        rf"assign {NET} = padding \? \{{[^}}]*\}}",
        r"assign \1 = padding ? 8'h00",
        WHOLE,
    ),
    Mutation(
        "every activation digit is the lowest",
        "sequencer",
        r"assign read = \$signed\(address\) \+ .*;",
        "assign read = $signed(address);",
        WHOLE,
    ),
    Mutation(
        "digit pairs skip the rest of their diagonal",
        "sequencer",
        r"assign along = .*;",
        "assign along = 1'h0;",
        WHOLE,
    ),
    Mutation(
        "weights are released before the tile's last position",
        "sequencer",
        r"assign o_release = (weights__en) & tile_end;",
        r"assign o_release = \1 & output_x_and_all_inside_end;",
        WHOLE,
    ),
    Mutation(
        "a cycle is lost between two tiles",
        "sequencer",
        rf"assign {NET} = ({NET}) \| ({NET});\n(?=.*i_halt;\n.*i_command__ready)",
        r"assign \1 = \2;\n",
        WHOLE,
    ),
    Mutation(
        "a read outside the activation buffer is no error",
        "sequencer",
        r"assign o_address_error = .*;",
        "assign o_address_error = 1'h0;",
        WHOLE,
    ),
    Mutation(
        "only one half of the weight banks is read",
        "weight_buffer",
        rf"assign {NET} = ~ read;",
        r"assign \1 = read;",
        WHOLE,
    ),
    Mutation(
        "the pool takes the minimum",
        "result_writer",
        rf"assign {NET} = i_result__payload\[3:0\] > ",
        r"assign \1 = i_result__payload[3:0] < ",
        WHOLE,
    ),
    Mutation(
        "lanes without a channel keep what was there",
        "result_writer",
        rf"assign {NET} = slot <= 1'h1;",
        r"assign \1 = slot == 1'h1;",
        WHOLE,
    ),
    Mutation(
        "rows without a channel are written",
        "result_walk_2",
        r"assign lanes = .*;",
        "assign lanes = 2'h3;",
        WHOLE,
    ),
    Mutation(
        "digits of a result are written to one word",
        "result_walk_2",
        rf"assign {NET} = \$signed\(word_address\) \+ \$signed\(\{{ 1'h0, digit \}}\);",
        r"assign \1 = word_address;",
        WHOLE,
    ),
    Mutation(
        "the residual operand does not wait for the datapath",
        "skip_reader",
        r"assign moving = .*;",
        "assign moving = 1'h1;",
        WHOLE,
    ),
    Mutation(
        "the residual operand's high digit is lost",
        "skip_reader",
        r"assign group_1 = .*;",
        "assign group_1 = 4'h0;",
        WHOLE,
    ),
    Mutation(
        "a layer begins before the one before has ended",
        "core",
        rf"assign {NET} = idle \| {NET};",
        r"assign \1 = 1'h1;",
        WHOLE,
    ),
    Mutation(
        "the end of an input packet is not looked at",
        "load",
        rf"assign {NET} = i_input__payload\[\d+\] != last;",
        r"assign \1 = 1'h0;",
        WHOLE,
    ),
    Mutation(
        "an output word that waits is overwritten",
        "store",
        rf"assign {NET} = {NET} \| o_output__ready;",
        r"assign \1 = 1'h1;",
        WHOLE,
    ),
    Mutation(
        "a row takes one weight word too many",
        "program_fetch",
        r"assign last_address = address == ",
        "assign last_address = address > ",
        WHOLE,
    ),
    Mutation(
        "beats are counted while they wait",
        "core",
        r"assign o_beat = (\S+) & .*;",
        r"assign o_beat = \1;",
        WHOLE,
    ),
    Mutation(
        "scale products are cut off, not rounded",
        "scale_product",
        r"(assign row_0 = ~ \{.*), 1'h0, (products_0_n\[1:0\] \};)",
        r"\1, 1'h1, \2",
        SCALED,
    ),
    Mutation(
        "a vector's sum counts as unsigned",
        "scaled_row",
        r"(\.a)\((\S+) \),",
        r"\1({ 1'h0, \2 [8:0] }),",
        SCALED,
    ),
    Mutation(
        "a position begins with what the one before left",
        "scaled_row",
        r"= restart \? 32'd0 : acc;",
        "= acc;",
        SCALED,
    ),
    Mutation(
        "the weights' offset is that of the next word",
        "vector_offset",
        r"always @\(posedge clk\)\n",
        "always @*\n",
        SCALED,
    ),
)


@dataclass(frozen=True)
class Design:
    """A component, its Verilog and its bench; ``check`` returns why a simulation of it fails, or ``None``.

    ``harness`` is Verilog around it, whose top module is ``top`` then.
    """

    top: str
    verilog: str
    check: Callable[[runner.Simulation, Path], str | None]
    harness: str = ""


def designs(scratch: Path) -> dict[str, Design]:
    """The components that are mutated, each with the bench that has to notice; the Datapath's runs a small network.

    Parameters
    ----------
    scratch : path
        Where the network's golden vectors are written.
    """
    array = MacArray(
        rows=CONFIG.rows,
        lanes=CONFIG.lanes,
        digit_bits=CONFIG.digit_bits,
        acc_bits=CONFIG.acc_bits,
        drain_rows=CONFIG.requant_lanes,
    )
    scaled: dict[str, Any] = {
        "rows": 2,
        "lanes": CONFIG.lanes,
        "digit_bits": 4,
        "weight_scale_bits": 4,
        "activation_scale_bits": 4,
        "product_shift": 3,
        "acc_bits": 32,
    }
    scaled_array = ScaledArray(**scaled)
    unit: dict[str, Any] = {
        "acc_bits": CONFIG.acc_bits,
        "multiplier_bits": CONFIG.multiplier_bits,
        "bias_bits": CONFIG.bias_bits,
        "max_shift": CONFIG.max_shift,
        "max_output_bits": CONFIG.max_output_bits,
        "skip_bits": CONFIG.max_output_bits,
        "skip_multiplier_bits": CONFIG.skip_multiplier_bits,
        "accumulator_out": True,
    }
    pact = PactUnit(**unit)
    threshold = ThresholdUnit(acc_bits=ACC_BITS, output_bits=THRESHOLD_BITS)
    network = examples.small_network()
    with_scales = examples.scaled_network(shift=scaled["product_shift"])
    folder = scratch / network.name
    for each in (network, with_scales):
        vectors.write(scratch / each.name, each, examples.random_codes(each, 1, seed=1), seed=1)

    def bench(name: str, tests: str, job: dict[str, Any]) -> Callable[[runner.Simulation, Path], str | None]:
        def check(simulation: runner.Simulation, directory: Path) -> str | None:
            try:
                for stall in (0.0, 0.5):
                    runner.run_bench(
                        simulation,
                        f"tb.benches.{name}",
                        {**job, "stall": stall},
                        directory=directory,
                        test_filter=tests,
                        limit_s=60,
                    )
            except runner.SimulationError as error:
                return str(error)
            return None

        return check

    def layers(simulation: runner.Simulation, directory: Path) -> str | None:
        try:
            for stalls in (0.0, 0.5, {"o_result": 0.8}):
                report = simulate_layers(
                    folder,
                    CONFIG,
                    simulation.simulator,
                    stalls=stalls,
                    together=True,
                    simulation=simulation,
                    directory=directory,
                )
                if report.mismatches:
                    return str(report.difference)
        except runner.SimulationError as error:
            return str(error)
        return None

    sizes = {"acc_bits": ACC_BITS, "output_bits": THRESHOLD_BITS, "latency": threshold.latency, "random": 40}
    beats = {"config": asdict(CONFIG), "latency": array.latency, "random": 60}
    scaled_beats = {
        "array": scaled,
        "latency": scaled_array.latency,
        "vectors": str(scratch / with_scales.name),
        "layers": ["both_layer", "grouped_layer"],
    }
    items = {"unit": unit, "latency": pact.latency, "random": 300}
    return {
        "MacArray": Design("mac_array", generate(array, name="mac_array"), bench("mac_array", "random_beats", beats)),
        "ScaledArray": Design(
            "scaled_array", generate(scaled_array, name="scaled_array"), bench("scaled_array", "", scaled_beats)
        ),
        "PactUnit": Design(
            "pact_unit", generate(pact, name="pact_unit"), bench("pact_unit", "corners|random_items", items)
        ),
        "ThresholdUnit": Design(
            "threshold_unit", generate(threshold, name="threshold_unit"), bench("threshold_unit", "", sizes)
        ),
        "Datapath": Design("datapath", generate(Datapath(CONFIG), name="datapath"), layers),
        "Accelerator": Design(
            "harness", generate(Accelerator(CONFIG), name="accelerator"), check_accelerator, session.harness(CONFIG)
        ),
    }


def check_accelerator(simulation: runner.Simulation, directory: Path) -> str | None:
    """A whole network, once freely, once with stalls, and behind each of some wrong programs; why that fails."""
    network = examples.varied_network()
    x = examples.random_codes(network, 1, seed=1)
    expected = execute(network, x)
    program = build(network, CONFIG, trace=True)
    words, inputs, predicted = program.words(), program.inputs(x[0]), predict(program)
    limit = 10 * predicted.total
    wrong = {
        Error.MAGIC: ([words[0] ^ 1, *words[1:]], inputs),
        Error.INPUT_SHORT: (words, [inputs[0][:-1]]),
        Error.ADDRESS: (_reading_outside(program).words(), inputs),
    }
    good = session.Step([words], inputs, limit)
    stalled = replace(good, stalls=dict.fromkeys(session.STREAMS, 0.4))
    short = build(network, CONFIG)

    def wrong_codes(outcome: session.Outcome, what: Program) -> str | None:
        if outcome.error is not Error.NONE:
            return f"stopped with {outcome.error.name}"
        for name, got in what.decode(outcome.packets).items():
            _, difference = compare(name, expected[name], got[None])
            if difference is not None:
                return str(difference)
        return None

    def simulate(steps: list[session.Step]) -> tuple[session.Outcome, ...]:
        directory.mkdir(parents=True, exist_ok=True)
        return session.run_session(steps, CONFIG, simulation, directory=directory).outcomes

    try:
        free, last = simulate([good, replace(good, programs=[short.words()])])
        if reason := wrong_codes(free, program) or wrong_codes(last, short):
            return reason
        if (free.cycles, free.beats, free.layers) != (predicted.total, predicted.beats, predicted.stamps):
            return f"cycles, beats and stamps are {free.cycles, free.beats, free.layers}, not as predicted"
        steps = [stalled]
        for bad_words, bad_inputs in wrong.values():
            steps += [session.Step([bad_words], bad_inputs, limit), good]
        done = simulate(steps)
    except runner.SimulationError as error:
        return str(error)
    for expected_error, outcome in zip(wrong, done[1::2], strict=True):
        if outcome.error is not expected_error:
            return f"stopped with {outcome.error.name}, not {expected_error.name}"
    return next(filter(None, (wrong_codes(outcome, program) for outcome in done[::2])), None)


def _reading_outside(program: Program) -> Program:
    """The program with a layer whose input lies at the end of the activation buffer and beyond."""
    commands = list(program.commands)
    number = next(n for n, command in enumerate(commands) if command.opcode is Opcode.COMPUTE)
    fields = commands[number].fields | {"input_address": CONFIG.activation_depth - 1}
    commands[number] = replace(commands[number], fields=fields)
    return replace(program, commands=tuple(commands))


@dataclass(frozen=True)
class Outcome:
    """What a design's bench said of a mutation (of the design itself if that is ``None``).

    ``reason`` is what it failed with, ``None`` if it passed.
    """

    mutation: Mutation | None
    design: str
    reason: str | None


def run_all(
    simulator: str = "icarus", mutations: Sequence[Mutation] = MUTATIONS, *, console: Console | None = None
) -> list[Outcome]:
    """Run every design as it is, and with every one of its mutations among those given.

    Raises
    ------
    MutationError
        A mutation does not apply.
    tb.runner.SimulationError
        A mutated text does not compile.
    """
    with (
        tempfile.TemporaryDirectory(prefix="pactolus-") as scratch,
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
    ):
        known = designs(Path(scratch))
        runs: list[tuple[Mutation | None, str, str]] = [(None, name, design.verilog) for name, design in known.items()]
        for mutation in mutations:
            runs += [(mutation, name, mutation.apply(known[name].verilog)) for name in mutation.designs]

        def outcome(number: int) -> Outcome:
            mutation, name, text = runs[number]
            simulation = runner.compile_verilog(text, known[name].top, simulator, harness=known[name].harness)
            return Outcome(mutation, name, known[name].check(simulation, Path(scratch) / str(number)))

        outcomes = pool.map(outcome, range(len(runs)))
        return list(track(outcomes, "planting faults", len(runs), console=console, transient=True))


def table(outcomes: list[Outcome]) -> list[tuple[str, ...]]:
    """Per fault its name, its module, and per design ``caught``, ``escaped`` or, without the module, ``-``."""
    rows: list[tuple[str, ...]] = [("fault", "module", *DESIGN_NAMES)]
    said = {(outcome.mutation, outcome.design): outcome.reason for outcome in outcomes}
    rows.append(("none", "", *("fails" if said[None, name] else "passes" for name in DESIGN_NAMES)))
    for mutation in MUTATIONS:
        cells = (
            "-" if name not in mutation.designs else "caught" if said[mutation, name] else "escaped"
            for name in DESIGN_NAMES
        )
        rows.append((mutation.name, mutation.module, *cells))
    return rows


def markdown(outcomes: list[Outcome]) -> str:
    """The page ``docs/mutations.md``."""
    heading, *rows = table(outcomes)
    lines = [heading, ("---",) * len(heading), *rows]
    cells = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
    return f"""# Planted faults

Faults are planted in the generated Verilog, one at a time, and the benches are run: a bench that has never failed
proves nothing. Each column is the bench of one component; `-`: that component does not hold the module.
The Datapath's bench runs the layers of a small network with stalls on every stream; the accelerator's runs a whole one,
with and without stalls and behind wrong programs, and compares cycles too.

{cells}
Written by `python -m tb.mutations` (Icarus Verilog); `pytest tb/test_mutations.py` runs the same and compares.
"""


def main() -> int:
    """Run everything, print the table, write the page; 1 when a fault escaped or a design fails without one."""
    console = Console()
    outcomes = run_all(console=console)
    heading, *rows = table(outcomes)
    shown = Table(*heading, box=box.SIMPLE_HEAD)
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(markdown(outcomes))
    wrong = [outcome for outcome in outcomes if (outcome.mutation is None) != (outcome.reason is None)]
    for outcome in wrong:
        name = "without a fault" if outcome.mutation is None else f"with {outcome.mutation.name!r}"
        console.print(f"{outcome.design} {name}: {outcome.reason or 'passes'}", markup=False)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
