"""The pages of docs/ that are written from the code: registers, stream format, and the C header."""

from __future__ import annotations

import ast
import enum
import inspect
import textwrap
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from hw import registers
from hw.command import command_fields
from hw.config import PRESETS
from hw.program_format import COMMANDS, HEADER, LOOPS, MAGIC, VERSION, Error, Field, Opcode, constants_fields, placed
from hw.registers import Register
from hw.verilog import write_if_changed

__all__ = ["pages", "write"]

EXAMPLE = PRESETS["small"]
NOTICE = "<!-- Written by `pactolus docs` from the code; do not edit. -->"


def pages() -> dict[str, str]:
    """File name in docs/ and text of every page."""
    return {
        "registers.md": _registers(),
        "stream-format.md": _stream_format(),
        "pactolus_registers.h": registers.c_header(),
    }


def write(folder: Path) -> list[Path]:
    """Write the pages whose text has changed; return their paths."""
    return [folder / name for name, text in pages().items() if write_if_changed(folder / name, text)]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    lines = [head, tuple("---" for _ in head), *map(tuple, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _members(kind: type[enum.Enum]) -> dict[str, str]:
    """What is written below each member of an enumeration."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    docs = {}
    for assign, doc in pairwise(body):
        if isinstance(assign, ast.Assign) and isinstance(doc, ast.Expr):
            docs[assign.targets[0].id] = doc.value.value.replace("``", "`")  # type: ignore[attr-defined]
    return docs


def _errors() -> str:
    docs = _members(Error)
    return _table(("code", "name", "why"), ((str(error.value), error.name, docs[error.name]) for error in Error))


# Registers.


def _access(item: Register) -> str:
    return "read, write" if item.writable else "read only"


def _registers() -> str:
    identity = registers.identity(EXAMPLE)
    overview = _table(
        ("offset", "register", "access", "what"),
        (
            (
                f"`0x{item.offset:03X}`" + (f" … `0x{item.offset + 4 * item.count - 4:03X}`" if item.count > 1 else ""),
                f"{item.name}[{item.count}]" if item.count > 1 else item.name,
                _access(item),
                item.doc + (f" `small`: {_number(item.name, identity)}." if item.name in identity else ""),
            )
            for item in registers.REGISTERS
        ),
    )
    fields = "\n\n".join(
        f"**{item.name}**\n\n"
        + _table(
            ("bits", "field", "access", "what"),
            (
                (
                    f"{bits.low}" if bits.width == 1 else f"{bits.low + bits.width - 1}:{bits.low}",
                    bits.name,
                    bits.access.value,
                    bits.doc,
                )
                for bits in item.bits
            ),
        )
        for item in registers.REGISTERS
        if item.bits
    )
    return f"""# The registers

{NOTICE}

AXI4-Lite, 32-bit data, {registers.ADDRESS_BITS}-bit byte addresses, version {registers.MAP_VERSION} of the map. As C:
[pactolus_registers.h](pactolus_registers.h); in Python: `hw.registers`.

{overview}

## Fields

{fields}

Bits without a field read 0 and ignore what is written. Of fields that are written 1 to clear or to start, writing 0
changes nothing; writing back to STATUS what was read clears exactly what was seen.

## Error codes

{_errors()}

Where a word of the program stream is wrong in several ways, the smallest code is noted; where the program stream and
the core fail in the same cycle, the core's.

## Accesses

- The two low address bits are ignored; strobes are honoured byte by byte.
- An address without a register, and a write to a register that cannot be written, is answered with SLVERR (an address
  without a register reads 0); nothing changes. Everything else is answered with OKAY.
- Address and data of a write may come in any order. Reads and writes do not wait for each other; a read in the cycle of
  a write gives the old value. One write and one read every two cycles at most.

## Counters

A program runs from the cycle in which its first word is accepted (its cycle 1) until the END command has been executed
or an error stops it. All counters and the layer table begin again with a program's first word: read them before the
next program starts, which is as soon as its words are offered.

Utilization is the network's own MACs × digit pairs ÷ (CYCLES × ROWS × LANES). In CYCLES − BEATS cycles the array had
nothing to do; the three kinds of waits are what the streams have to do with it.

## Interrupt

A level: `(STATUS.done and CONTROL.done_interrupt) or (STATUS.error and CONTROL.error_interrupt)`. Write STATUS.done,
or do a soft reset, to end it.

## Errors and soft reset

The first error stops everything: STATUS.error is 1 and ERROR says why and where. Program and input words are accepted
and thrown away, so that transfers under way end by themselves; of the output stream what is offered stays until it is
taken, and commands before the wrong one may still send theirs. A soft reset (write CONTROL.soft_reset, read until it is
0) makes the accelerator usable again. It waits until no word of the output stream is offered and not accepted, and
changes neither CONTROL's other fields nor STATUS.done nor the counters. Finish or abort the transfers of all three
streams first: what comes afterwards of a broken-off program is taken for the beginning of a new one, and an output
packet that has not ended ends without tlast.
"""


def _number(name: str, identity: dict[str, int]) -> str:
    value = identity[name]
    return f"`0x{value:08X}`" if name in ("ID", "VERSION", "FINGERPRINT") else str(value)


# Stream format.


def _record(record: tuple[Field, ...], *, ranges: bool = True) -> str:
    limits = command_fields(EXAMPLE)
    rows = []
    for bit, field in placed(record):
        word, low = divmod(bit, 32)
        bits = f"{low}" if field.bits == 1 else f"{low + field.bits - 1}:{low}"
        row = [str(word), bits, f"`{field.name}`", field.doc + (" (signed)" if field.signed else "")]
        if ranges:
            _, least, most = limits.get(field.name, (None, 0, 0))
            row.append("" if field.name == "opcode" else f"{least} … {most}")
        rows.append(row)
    return _table(("word", "bits", "field", "what", *(["`small` allows"] if ranges else [])), rows)


def _stream_format() -> str:
    opcodes = _members(Opcode)
    commands = "\n\n".join(
        f"### {opcode.name}, opcode {opcode.value}\n\n{opcodes[opcode.name]}\n\n{_record(COMMANDS[opcode])}"
        for opcode in (Opcode.LOAD, Opcode.STORE, Opcode.COMPUTE, Opcode.END)
    )
    constants = tuple(
        Field(field.name, field.bits, doc, field.signed)
        for field, doc in zip(constants_fields(EXAMPLE), _constant_docs(), strict=True)
    )
    return f"""# The program stream

{NOTICE}

Version {VERSION}. `hw.program_format` is its definition, `hw.program` writes it, `hw.fetch` reads it, and `pactolus
program NETWORK --list` prints one for people. How the accelerator works is in [the accelerator](accelerator.md).

## Words and records

A program is one packet of the AXI4-Stream `s_axis_program`, of `stream_bits` wide words, `tlast` in its last word and
nowhere before. It holds *records*; each begins in a new stream word and is filled up with zeros to whole ones. The
fields of a record lie one after the other from its lowest bit up. The tables give them by 32-bit words of the record,
of which a stream word holds `stream_bits` / 32, the first one lowest; no field crosses a multiple of 32 bits. Signed
fields are two's complement. Bits that no field has are written as 0 and not read.

    program = header, {{ LOAD | STORE | compute }}, END
    compute = COMPUTE, channels × constants, channels × weight_words × weight word

The header, the commands' records and the constants are below; a weight word is one stream word.

### Header

{_record(HEADER, ranges=False)}

The magic number is `0x{MAGIC:08X}`.

## Commands

The last column is what the preset `small` accepts; other values stop the program with an error. With `fence` a command
waits until all before it have finished; LOAD, STORE and END wait for that whether they have it or not. A command with
`mark` notes the cycle in which it finishes in LAYER_CYCLES (see [the registers](registers.md)).

{commands}

### Requantization constants

One record for each of the `channels` rows of a COMPUTE, row 0 first. A number for which the configuration has more than
32 bits takes two 32-bit words. For `small`:

{_record(constants, ranges=False)}

Each must fit its width in the configuration: `multiplier_bits`, `skip_multiplier_bits`, `bias_bits`; S is at most
`max_shift`.

### Weight words

`weight_words` words for row 0, then as many for row 1, up to row `channels` − 1. Each has `lanes` digits of
`digit_bits` bits, lane 0 lowest, in the low bits of one stream word. The words of digit i of the row's codes begin at
word i · `plane`, one for each beat of a pass in the order of the loops (with `broadcast` in that of the word loop
alone).

## What a COMPUTE does

The state is (address, x, y), at first (`input_address`, `x`, `y`). The loops are, innermost first:
{", ".join(LOOPS)}.
Each *beat* takes the state as it is; then the innermost loop that is not in its last iteration goes on: it adds its
`step` to the address and its `dx`, `dy` to x and y. The loops inside it begin again without any change of the state:
their way back is part of the step.

- **pass** goes over the pairs of digit i of the weights and digit j of the activations, i from 0 to
  `weight_digits_last`, j from 0 to `activation_digits_last`, in descending i + j and within that in ascending i. It
  has no count of its own.
- **Reads**: a beat's activation word is at address + j. Where x is outside 0 … `width` − 1 or y outside 0 … `height`
  − 1 nothing is read: the word has digit j of `pad_code` in its lanes, in the word loop's last iteration only in
  those below `pad_lanes`, and 0 elsewhere.
- **Positions**: all iterations of word, kernel_x, kernel_y and pass make one position; `window_last` + 1 consecutive
  positions make one output pixel, the maximum of their codes.
- **Writes**: with S = `lanes` / `requant_lanes` and t = `slot` + g, digit j of the g-th `requant_lanes` channels of
  pixel p goes to word `output_address` + p · `output_step` + ⌊t / S⌋ · (`output_digits_last` + 1) + j, in the lanes
  from (t mod S) · `requant_lanes` up. Lanes above them in that word become 0, so the tiles of an output come in
  ascending order of channels. Lanes of rows that have no channel are written as 0; g goes up to the last one with a
  channel.
- **Residual operand**, with `use_skip`: read in the same way from `skip_address`, with `skip_step` and
  `skip_digits_last`. Not together with `window_last` > 0.
- `output_bits` = 0 writes the accumulators: their low (`output_digits_last` + 1) · `digit_bits` bits.

## Input and output

Each LOAD takes one packet of `s_axis_input`, each STORE makes one packet of `m_axis_output`, of `words_last` + 1
words with an activation word in the low `lanes` · `digit_bits` bits of each; the bits above are not read, and are 0.
A tensor C×H×W of a-bit codes is H rows of W pixels, for each pixel ⌈C / `lanes`⌉ words of channels, for each of those
⌈a / `digit_bits`⌉ words of digits, the low digit first, as in the activation buffer. Of a first layer that the host
packs (the listing says so) it is the tensor of packed windows.

## The order in which a host feeds

None is wrong: the three streams wait for each other, and nothing is lost. But each stands still until the commands
before have had what they need:

- program words are accepted until the tiles ahead fill the second halves of the weight banks and constants; then the
  program waits for the computation, and the computation for the input that a LOAD wants;
- input words are accepted only by a LOAD that has been reached;
- an output word that is not taken holds its STORE and everything after it.

So a host does not wait until one stream has been accepted wholly before it serves the others: with a DMA channel for
each stream, all three are started at once. The next program may be offered at any time; its first word is accepted
once the END before it has been executed.

## Errors

{_errors()}

A word is checked when it is accepted. Where it is wrong in several ways the smallest code is noted. Nothing of it or
after it is carried out: a COMPUTE begins only when all of its weights have come. Addresses that the loops make are
checked when they are used.

## What is not checked

This holds for every program that `hw.program.build` makes. One from elsewhere that breaks it computes wrong numbers or
does not end; a soft reset makes the accelerator usable again.

- i · `plane` + n is below `weight_words` for every digit i and beat n of a pass.
- The digit counts agree with `weight_bits`, `output_bits` and the codes that are in the buffer.
- The positions are as many as (`window_last` + 1) · (`pixels_last` + 1).
- Sums fit `acc_bits`.
- A tile writes to nothing that it still reads, and has `fence` where it reads what commands before it write.
"""


def _constant_docs() -> list[str]:
    names = {"multiplier": "M", "skip_multiplier": "M_skip", "bias": "B", "shift": "S"}
    docs = []
    for field in constants_fields(EXAMPLE):
        name = field.name.removesuffix("_low").removesuffix("_high")
        half = (
            "low 32 bits" if field.name.endswith("_low") else "the bits above" if field.name.endswith("_high") else ""
        )
        docs.append(f"{names[name]}, {half}" if half else names[name])
    return docs
