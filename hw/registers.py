"""The register map: what the addresses of the AXI4-Lite port mean.

One table, :data:`REGISTERS`, of which the RTL, the Python driver, the C header and the documentation are made.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hw import program_format
from hw.config import AcceleratorConfig
from hw.program_format import Error

__all__ = [
    "ADDRESS_BITS",
    "COUNTER_BITS",
    "LAYERS",
    "MAP_VERSION",
    "REGISTERS",
    "Access",
    "Bits",
    "Register",
    "c_header",
    "identity",
    "register",
]

MAP_VERSION = 1
ADDRESS_BITS = 12
LAYERS = 64
"""Entries of the layer table."""
COUNTER_BITS = 48
"""Width of the 64-bit counters; the bits above are 0."""


class Access(enum.Enum):
    """What reading and writing do to a field."""

    RO = "read only"
    RW = "read, write"
    W1C = "read, write 1 to clear"
    W1S = "read, write 1 to start"


@dataclass(frozen=True)
class Bits:
    """A field of a register: bits ``low`` to ``low + width - 1``."""

    name: str
    low: int
    width: int
    access: Access
    doc: str

    @property
    def mask(self) -> int:
        """The field's bits in the register, all ones."""
        return ((1 << self.width) - 1) << self.low


@dataclass(frozen=True)
class Register:
    """A 32-bit register, or ``count`` of them in a row.

    ``bits`` are its fields; a register that is one number has none and is read only.
    """

    name: str
    offset: int
    doc: str
    bits: tuple[Bits, ...] = ()
    count: int = 1

    def __getitem__(self, name: str) -> Bits:
        """The field called ``name``."""
        for bits in self.bits:
            if bits.name == name:
                return bits
        raise KeyError(f"Register {self.name} must have a field {name!r}, but has none")

    @property
    def writable(self) -> bool:
        """Whether a write does anything."""
        return any(bits.access is not Access.RO for bits in self.bits)


_CONFIG_FIELDS = {
    "rows": "Output channels computed in parallel.",
    "lanes": "Digits of an activation word.",
    "digit_bits": "Width of a digit.",
    "acc_bits": "Width of the accumulators.",
    "requant_lanes": "Accumulators requantized per cycle.",
    "max_output_bits": "Largest width of an output code.",
    "weight_depth": "Weight words of a row in each half of its bank.",
    "activation_depth": "Words of the activation buffer.",
    "stream_bits": "Width of the streams' tdata.",
}

REGISTERS: tuple[Register, ...] = (
    Register("ID", 0x000, "The characters PACT, the first in the lowest byte."),
    Register(
        "VERSION",
        0x004,
        "Versions of what a driver relies on.",
        (
            Bits("format", 0, 16, Access.RO, "version of the program stream, as in a program's header"),
            Bits("map", 16, 16, Access.RO, "version of this register map"),
        ),
    ),
    Register("FINGERPRINT", 0x008, "Of the configuration; a program's header must have the same."),
    *(
        Register(name.upper(), 0x00C + 4 * index, f"{doc} Configuration.")
        for index, (name, doc) in enumerate(_CONFIG_FIELDS.items())
    ),
    Register(
        "CONTROL",
        0x040,
        "All fields are 0 after reset; a soft reset does not change them.",
        (
            Bits("enable", 0, 1, Access.RW, "accept words of the program stream"),
            Bits(
                "soft_reset",
                1,
                1,
                Access.W1S,
                "reset everything but the registers, once no word of the output stream waits for tready; 1 until done",
            ),
            Bits("done_interrupt", 8, 1, Access.RW, "interrupt while STATUS.done"),
            Bits("error_interrupt", 9, 1, Access.RW, "interrupt while STATUS.error"),
        ),
    ),
    Register(
        "STATUS",
        0x044,
        "What the accelerator is doing.",
        (
            Bits("busy", 0, 1, Access.RO, "a program has begun and has neither finished nor failed"),
            Bits("done", 1, 1, Access.W1C, "a program has finished since this bit was cleared"),
            Bits("error", 2, 1, Access.RO, "stopped by an error, until a soft reset"),
        ),
    ),
    Register(
        "ERROR",
        0x048,
        "The first error since reset; 0 where there was none. A soft reset clears it.",
        (
            Bits("code", 0, 8, Access.RO, "why; see the table of error codes"),
            Bits(
                "command",
                8,
                24,
                Access.RO,
                "index in the program, from 0: of the command being read if the program stream is wrong (0 for the "
                "header), else of the last one begun",
            ),
        ),
    ),
    Register("PROGRAMS", 0x04C, "Programs finished since reset, modulo 2^32."),
    Register(
        "CYCLES_LOW",
        0x050,
        "Cycles from the one in which the program's first word was accepted to the one in which its last output word "
        "so far was, both counted; 0 before there is an output word. Reading it keeps the high half for CYCLES_HIGH.",
    ),
    Register("CYCLES_HIGH", 0x054, "High half of CYCLES, as it was when CYCLES_LOW was read."),
    Register(
        "BEATS_LOW",
        0x058,
        "Cycles in which the array took a beat. Reading it keeps the high half for BEATS_HIGH.",
    ),
    Register("BEATS_HIGH", 0x05C, "High half of BEATS, as it was when BEATS_LOW was read."),
    Register("PROGRAM_WAITS", 0x060, "Cycles in which a command could have begun, but none was there."),
    Register("INPUT_WAITS", 0x064, "Cycles in which a LOAD waited for the input stream."),
    Register("OUTPUT_WAITS", 0x068, "Cycles in which a STORE waited for the output stream."),
    Register("LAYERS", 0x06C, f"Entries noted in LAYER_CYCLES, at most {LAYERS}; later marks are not noted."),
    Register(
        "LAYER_CYCLES",
        0x400,
        "Entry n is the cycle in which the program's marked command n finished, counted as CYCLES, modulo 2^32; 0 "
        "where none is noted.",
        count=LAYERS,
    ),
)


def register(name: str) -> Register:
    """The register called ``name``."""
    for found in REGISTERS:
        if found.name == name:
            return found
    raise KeyError(f"Register must be one of the map's, not {name!r}")


def identity(config: AcceleratorConfig) -> dict[str, int]:
    """The registers that are constants of a configuration, and what they read."""
    return {
        "ID": program_format.MAGIC,
        "VERSION": program_format.VERSION | MAP_VERSION << 16,
        "FINGERPRINT": program_format.fingerprint(config),
        **{name.upper(): getattr(config, name) for name in _CONFIG_FIELDS},
    }


def c_header() -> str:
    """The register map and the error codes as a C header, the same for every configuration."""
    lines = [
        "/* Register map of the Pactolus accelerator. Written by `pactolus docs`; do not edit. */",
        "#ifndef PACTOLUS_REGISTERS_H",
        "#define PACTOLUS_REGISTERS_H",
        "",
        f"#define PACTOLUS_ID_VALUE 0x{program_format.MAGIC:08X}u",
        f"#define PACTOLUS_FORMAT_VERSION {program_format.VERSION}u",
        f"#define PACTOLUS_MAP_VERSION {MAP_VERSION}u",
    ]
    for item in REGISTERS:
        name = f"PACTOLUS_{item.name}"
        lines += ["", f"/* {item.doc} */", f"#define {name}_OFFSET 0x{item.offset:03X}u"]
        if item.count > 1:
            lines.append(f"#define {name}_COUNT {item.count}u")
        for bits in item.bits:
            field = f"{name}_{bits.name.upper()}"
            lines += [f"#define {field}_SHIFT {bits.low}u", f"#define {field}_MASK 0x{bits.mask:08X}u"]
    lines += ["", "/* ERROR.code */"]
    lines += [f"#define PACTOLUS_CODE_{error.name} {error.value}u" for error in Error]
    lines += ["", "#endif", ""]
    return "\n".join(lines)
