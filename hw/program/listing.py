"""A program as text that a person can check by hand: the buffer plan, then one line a command; and its cycles."""

from __future__ import annotations

from collections.abc import Sequence

from golden.network import Kind, Tensor
from hw.program.builder import Program
from hw.program.cycles import predict
from hw.program.tiles import Command, digits
from hw.program_format import LOOPS, Opcode

__all__ = ["cycles_listing", "listing"]

LEGEND = """\
Addresses are words of the buffer. "weights": two's complement ("signed") or on the odd grid. "reads A (x, y) of W×H":
the first tap, in a map W wide and H high; "pad c/n": a position outside holds code c, in n lanes of a pixel's last
word. "loops", innermost first, are name·iterations(dx, dy, address): what each iteration but the first adds, the way
back of the loops inside included. "writes A+s×n": n pixels, s words apart; "slot": which requantizer-wide group of
lanes of the first word the tile begins in."""

CYCLES_LEGEND = """\
drain: a beat waits until the results before it have left the requantizers and are written. program: the array waits for
a tile's constants and weights. latency: from the start to the first beat, from the last beat to the last result."""


def listing(program: Program) -> str:
    """The text of :meth:`~hw.program.Program.listing`, ending in a newline."""
    config = program.config
    words = len(program.words())
    return "\n".join(
        [
            f"Program of {program.network.name} for {config.name}: {config.rows} rows, {config.lanes} lanes, "
            f"{config.digit_bits}-bit digits.",
            f"{len(program.commands)} commands in {words} words of {config.stream_bits} bits.",
            "",
            *_plan(program),
            "",
            *_layers(program),
            "",
            LEGEND,
            "",
            *_commands(program),
            "",
        ]
    )


def cycles_listing(program: Program) -> str:
    """Where the cycles of a program go, as :func:`hw.program.cycles.predict` says, ending in a newline."""
    predicted = predict(program)
    array = program.config.rows * program.config.lanes
    rows: list[tuple[str, ...]] = [("", "cycles", "beats", "drain", "program", "latency", "utilization")]
    moves = list(predicted.moves)
    rows += [(*map(str, moves[0]), *[""] * 5)]
    for planned, layer in zip(program.layers, predicted.layers, strict=True):
        counts = (layer.cycles, layer.beats, layer.drain, layer.program, layer.latency)
        rows.append((layer.name, *map(str, counts), f"{planned.macs / (layer.cycles * array):.1%}"))
    rows += [(*map(str, move), *[""] * 5) for move in moves[1:]]
    sums = [sum(getattr(layer, name) for layer in predicted.layers) for name in ("drain", "program", "latency")]
    products = sum(layer.macs for layer in program.layers)
    whole = f"{products / (predicted.total * array):.1%}"
    rows.append(("all", str(predicted.total), str(predicted.beats), *map(str, sums), whole))
    head = f"Cycles of {program.network.name} on {program.config.name}, streams never waiting."
    return "\n".join([head, "", *_table(rows, right=range(1, 7)), "", CYCLES_LEGEND, ""])


def _table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Columns as wide as they need to be, two blanks apart; those of ``right`` are flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _plan(program: Program) -> list[str]:
    steps = ["LOAD", *(layer.name for layer in program.layers), "STORE"]
    rows = [("address", "words", "tensor", "shape", "holds", "alive from", "to")]
    for region in program.regions:
        life = region.lifetime
        tensor = program.source if life.tensor == program.network.input.name else program.network.tensor(life.tensor)
        rows.append(
            (
                _span(region.address, life.words),
                str(life.words),
                life.tensor,
                "×".join(map(str, tensor.shape)),
                _holds(tensor, digits(tensor, program.config)),
                steps[life.first],
                steps[life.last],
            )
        )
    used = max(region.end for region in program.regions)
    head = f"Activation buffer: {used} of {program.config.activation_depth} words."
    return [head, *_table([rows[0], *sorted(rows[1:])], right=(1,))]


def _layers(program: Program) -> list[str]:
    rows = [("layer", "computes", "writes", "mark", "tiles", "positions", "beats", "digit products", "weight words")]
    rows += [
        (
            layer.name,
            ", ".join(layer.operations) + (" (windows along the channels)" if layer.packed else ""),
            layer.tensor,
            "-" if layer.mark is None else str(layer.mark),
            str(layer.tiles),
            str(layer.positions),
            str(layer.beats),
            str(layer.macs),
            str(layer.weight_words),
        )
        for layer in program.layers
    ]
    return _table(rows, right=range(3, 9))


def _commands(program: Program) -> list[str]:
    rows = [
        (str(number), command.opcode.name, command.note, _describe(command, program))
        for number, command in enumerate(program.commands)
    ]
    return _table(rows, right=(0,))


def _describe(command: Command, program: Program) -> str:
    if command.opcode is Opcode.END:
        return ""
    fields = command.fields
    flags = [name for name in ("fence", "mark") if fields[name]]
    if command.opcode is not Opcode.COMPUTE:
        words = fields["words_last"] + 1
        return " | ".join([f"{_span(fields['address'], words)}, {words} words", *flags])
    parts = [
        f"weights {fields['weight_bits']}-bit {'odd' if fields['odd'] else 'signed'}, "
        f"{_count(fields['weight_digits_last'] + 1, 'digit')} of {_count(fields['plane'], 'word')} a row",
        f"reads {_address(fields['input_address'])} ({fields['x']}, {fields['y']}) of "
        f"{fields['width']}×{fields['height']}, {_count(fields['activation_digits_last'] + 1, 'digit')}, "
        f"pad {fields['pad_code']}/{fields['pad_lanes']}",
        _loops(fields),
        f"writes {_address(fields['output_address'])}+{fields['output_step']}×{fields['pixels_last'] + 1}, "
        f"slot {fields['slot']}, {_count(fields['output_digits_last'] + 1, 'digit')} of "
        + (f"{fields['output_bits']}-bit codes" if fields["output_bits"] else "the accumulators"),
    ]
    if fields["window_last"]:
        parts.append(f"maximum of {fields['window_last'] + 1}")
    if fields["use_skip"]:
        parts.append(
            f"adds {_address(fields['skip_address'])}+{fields['skip_step']}, "
            f"{_count(fields['skip_digits_last'] + 1, 'digit')}"
        )
    if fields["broadcast"]:
        parts.append("broadcast")
    return " | ".join([*parts, *flags])


def _loops(fields: dict[str, int]) -> str:
    shown = []
    for loop in LOOPS:
        moves = tuple(fields[f"{loop}_{move}"] for move in ("dx", "dy", "step"))
        iterations = fields[f"{loop}_last"] + 1
        if loop == "pass":
            iterations = (fields["weight_digits_last"] + 1) * (fields["activation_digits_last"] + 1)
        if iterations > 1:
            shown.append(f"{loop}·{iterations}({', '.join(f'{move:+d}' for move in moves)})")
    return "loops " + (" ".join(shown) or "none")


def _span(address: int, words: int) -> str:
    return f"{_address(address)}-{_address(address + words - 1)}"


def _address(value: int) -> str:
    return f"{'-' if value < 0 else ''}0x{abs(value):04x}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _holds(tensor: Tensor, count: int) -> str:
    what = f"{tensor.bits}-bit {'codes' if tensor.kind is Kind.CODE else 'accumulators'}"
    zero = f", zero point {tensor.zero_point}" if tensor.zero_point else ""
    return f"{what}, {_count(count, 'digit')}{zero}"
