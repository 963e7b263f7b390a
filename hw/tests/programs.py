"""Random programs, word by word, with what the fetch unit must make of each word."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hw.command import command_fields
from hw.program.words import pack_record
from hw.program_format import (
    COMMANDS,
    HEADER,
    MAGIC,
    VERSION,
    Error,
    Opcode,
    constants_fields,
    fingerprint,
    offsets,
    record_words,
)

ZERO = (0, 0, 0, 0)


@dataclass
class Word:
    """One word of a program.

    ``commands``, ``constants`` (M, M_skip, B, S, tile fields) and ``weights`` (row, address, word, last) are what
    comes out because of it; ``at`` says where it stands: record, row, index in the record.
    """

    data: int
    last: bool = False
    commands: list[dict[str, int]] = field(default_factory=list)
    constants: list[tuple[int, ...]] = field(default_factory=list)
    weights: list[tuple[int, ...]] = field(default_factory=list)
    command: int = 0


def header(config, **change) -> list[Word]:
    values = {"magic": MAGIC, "version": VERSION, "fingerprint": fingerprint(config)} | change
    return [Word(word) for word in pack_record(HEADER, values, config.stream_bits)]


def values_of(config, opcode: Opcode, rng: random.Random) -> dict[str, int]:
    """Allowed values of all fields of a command, corners often."""
    ranges = command_fields(config)
    values = {"opcode": int(opcode)}
    for item in COMMANDS[opcode]:
        if item.name in ranges:
            _, low, high = ranges[item.name]
            values[item.name] = rng.choice([low, high, rng.randint(low, high)])
    if opcode is Opcode.COMPUTE:
        values["weight_words"] = rng.randint(1, min(6, config.weight_depth))
        if values["use_skip"]:
            values["window_last"] = 0
    return values


def constants_of(config, rng: random.Random) -> tuple[int, int, int, int]:
    widths = (config.multiplier_bits, config.skip_multiplier_bits, config.bias_bits)
    signed = [
        rng.choice([-(1 << bits - 1), (1 << bits - 1) - 1, -1, rng.randrange(-(1 << bits - 1), 1 << bits - 1)])
        for bits in widths
    ]
    return (*signed, rng.choice([0, config.max_shift, rng.randint(0, config.max_shift)]))


def constants_record(config, constants) -> dict[str, int]:
    """The values of the fields of :func:`constants_fields`."""
    whole = dict(zip(("multiplier", "skip_multiplier", "bias", "shift"), constants))
    values = {}
    for item in constants_fields(config):
        if item.name.endswith("_low"):
            values[item.name] = whole[item.name.removesuffix("_low")] & 0xFFFF_FFFF
        elif item.name.endswith("_high"):
            values[item.name] = whole[item.name.removesuffix("_high")] >> 32
        else:
            values[item.name] = whole[item.name]
    return values


def noise(record, word: int, index: int, bits: int, rng: random.Random) -> int:
    """The word with random bits where its record has no fields."""
    free = (1 << bits) - 1
    places = offsets(record)
    for item in record:
        if item.name in places and places[item.name] // bits == index:
            free &= ~(((1 << item.bits) - 1) << places[item.name] % bits)
    return word | rng.getrandbits(bits) & free


def command(config, opcode: Opcode, rng: random.Random, **change) -> list[Word]:
    """The words of a random command."""
    bits = config.stream_bits
    values = values_of(config, opcode, rng) | change
    record = COMMANDS[opcode]
    words = [
        Word(noise(record, word, index, bits, rng)) for index, word in enumerate(pack_record(record, values, bits))
    ]
    if opcode is Opcode.COMPUTE:
        tile = tuple(values[name] for name in ("output_bits", "weight_bits", "odd", "use_skip"))
        for _ in range(values["channels"]):
            constants = constants_of(config, rng)
            fields = constants_fields(config)
            words += [
                Word(noise(fields, word, index, bits, rng))
                for index, word in enumerate(pack_record(fields, constants_record(config, constants), bits))
            ]
            words[-1].constants.append((*constants, *tile))
        words[-1].constants += [(*ZERO, *tile)] * (config.rows - values["channels"])
        for row in range(values["channels"]):
            for address in range(values["weight_words"]):
                word = rng.getrandbits(config.lanes * config.digit_bits)
                last = row == values["channels"] - 1 and address == values["weight_words"] - 1
                data = (
                    word | rng.getrandbits(bits) >> config.lanes * config.digit_bits << config.lanes * config.digit_bits
                )
                words.append(Word(data, weights=[(row, address, word, last)]))
    words[-1].commands.append(values)
    words[-1].last = opcode is Opcode.END
    return words


def program(config, opcodes, rng: random.Random) -> list[Word]:
    """A program of these commands and END."""
    words = header(config)
    for index, opcode in enumerate([*opcodes, Opcode.END]):
        words += [replace(word, command=index) for word in command(config, opcode, rng)]
    return words


def wrong_values(config) -> Iterator[tuple[Opcode, str, int, Error]]:
    """Of every field of every command the values next to its range that the stream can say, and their error."""
    ranges = command_fields(config)
    for opcode, record in COMMANDS.items():
        for item in record:
            if item.name not in ranges:
                continue
            _, low, high = ranges[item.name]
            least = -(1 << item.bits - 1) if item.signed else 0
            for value in (low - 1, high + 1, least, least + (1 << item.bits) - 1):
                if least <= value < least + (1 << item.bits) and not low <= value <= high:
                    error = Error.ADDRESS if item.name.endswith("address") else Error.FIELD
                    if item.name == "weight_words" and value > high:
                        error = Error.WEIGHTS
                    yield opcode, item.name, value, error


def slot_of(config, opcode: Opcode, name: str) -> int:
    """Index of the word of its record in which a field stands."""
    return offsets(COMMANDS[opcode])[name] // config.stream_bits


def lengths(config) -> dict[Opcode, int]:
    """Words of the records of the commands."""
    return {opcode: record_words(record, config.stream_bits) for opcode, record in COMMANDS.items()}
