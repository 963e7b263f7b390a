"""Every malformed program and stream stops the accelerator with its documented error; after a soft reset it works."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

import pytest

from hw.command import command_fields
from hw.config import PRESETS, AcceleratorConfig
from hw.program import Program, build
from hw.program.cycles import predict
from hw.program_format import COMMANDS, HEADER, Error, Opcode, constants_fields, offsets, record_words
from tb import examples
from tb.session import Step, compile_accelerator, run_session
from tb.simulate import step_limit


@dataclass(frozen=True)
class Case:
    """A wrong program or input, and what must be said of it; ``command`` is None where it does not matter."""

    name: str
    words: Sequence[int]
    inputs: Sequence[Sequence[int]]
    error: Error
    command: int | None


def changed(program: Program, index: int, **fields: int) -> list[int]:
    """The program's words with some fields of a command changed."""
    command = program.commands[index]
    commands = list(program.commands)
    commands[index] = replace(command, fields={**command.fields, **fields})
    return replace(program, commands=tuple(commands)).words()


def starts(program: Program) -> list[int]:
    """The index of every command's first word."""
    bits, config = program.config.stream_bits, program.config
    found = [record_words(HEADER, bits)]
    for command in program.commands:
        weights = 0 if command.weights is None else command.weights.size // config.lanes
        constants = len(command.constants) * record_words(constants_fields(config), bits)
        found.append(found[-1] + record_words(COMMANDS[command.opcode], bits) + constants + weights)
    return found


def cases(program: Program, inputs: list[list[int]]) -> Iterator[Case]:
    """Each kind of mistake, at every place where it can be made; long programs are cut at random places."""
    config, words, random = program.config, program.words(), Random(1)
    first = starts(program)
    assert first.pop() == len(words)

    for name, error in (("magic", Error.MAGIC), ("version", Error.VERSION), ("fingerprint", Error.FINGERPRINT)):
        place, low = divmod(offsets(HEADER)[name], config.stream_bits)
        wrong = [word ^ (1 << low if n == place else 0) for n, word in enumerate(words)]
        yield Case(f"wrong {name}", wrong, inputs, error, 0)

    for index, command in enumerate(program.commands):
        for opcode in (0, 5, 255):
            wrong = list(words)
            wrong[first[index]] = wrong[first[index]] & ~0xFF | opcode
            yield Case(f"opcode {opcode} of command {index}", wrong, inputs, Error.OPCODE, index)
        for field in COMMANDS[command.opcode]:
            if field.name in ("opcode", "reserved"):
                continue
            _, low, high = command_fields(config)[field.name]
            least = -(1 << (field.bits - 1)) if field.signed else 0
            for value in (low - 1, high + 1, least, least + (1 << field.bits) - 1):
                if low <= value <= high or not least <= value < least + (1 << field.bits):
                    continue
                error = Error.ADDRESS if field.name.endswith("address") else Error.FIELD
                if field.name == "weight_words" and value > high:
                    error = Error.WEIGHTS
                changes = {field.name: value}
                yield Case(f"{changes} in command {index}", changed(program, index, **changes), inputs, error, index)

    skips = [n for n, c in enumerate(program.commands) if c.opcode is Opcode.COMPUTE and c.fields["use_skip"]]
    yield Case("pool and skip", changed(program, skips[0], window_last=1), inputs, Error.FIELD, skips[0])

    # Addresses that are allowed, and from which on the buffer ends too early.
    end = config.activation_depth - 1
    moves = [n for n, c in enumerate(program.commands) if c.opcode in (Opcode.LOAD, Opcode.STORE)]
    computes = [n for n, c in enumerate(program.commands) if c.opcode is Opcode.COMPUTE]
    for index in moves:
        wrong = changed(program, index, address=end)
        yield Case(f"command {index} leaves the buffer", wrong, inputs, Error.ADDRESS, None)
    for index in computes:
        for name in ("input_address", "output_address", "skip_address"):
            fields = program.commands[index].fields
            if name == "skip_address" and not fields["use_skip"]:
                continue
            wrong = changed(program, index, **{name: end})
            yield Case(f"{name} of command {index} leaves the buffer", wrong, inputs, Error.ADDRESS, None)

    for length in (1, *random.sample(range(2, len(words)), 20), len(words) - 1):
        yield Case(f"cut to {length} words", words[:length], inputs, Error.PROGRAM_SHORT, None)
    for more in ([0], words):
        last = len(program.commands) - 1
        yield Case(f"{len(more)} words more", [*words, *more], inputs, Error.PROGRAM_LONG, last)

    for length in (1, len(inputs[0]) - 1):
        short = [inputs[0][:length], *inputs[1:]]
        yield Case(f"input cut to {length} words", words, short, Error.INPUT_SHORT, 0)
    for more in ([0], inputs[0]):
        yield Case(f"{len(more)} words of input more", words, [[*inputs[0], *more]], Error.INPUT_LONG, 0)


@pytest.mark.parametrize(
    ("name", "stalls"), [("tiny", 0.4), pytest.param("tiny", 0.0, marks=pytest.mark.slow), ("small", 0.0)]
)
def test_each_is_found_and_the_next_program_runs(verilator: str, name: str, stalls: float) -> None:
    find_all(PRESETS[name], verilator, stalls, every=1)


def test_on_icarus(icarus: str) -> None:
    find_all(PRESETS["tiny"], icarus, 0.0, every=23)


def find_all(config: AcceleratorConfig, simulator: str, stalls: float, *, every: int) -> None:
    network = examples.small_network()
    program = build(network, config, trace=True)
    inputs = program.inputs(examples.random_codes(network, 1, seed=1)[0])
    wrong = list(cases(program, inputs))[::every]
    assert every > 1 or {case.error for case in wrong} == set(Error) - {Error.NONE}
    limit = 10 * step_limit(predict(program).total)
    how = dict.fromkeys(("program", "input", "output"), stalls)
    good = Step([program.words()], inputs, limit, how)
    steps = [good]
    for case in wrong:
        steps += [Step([case.words], case.inputs, limit, how), good]
    reference, *outcomes = run_session(steps, config, compile_accelerator(config, simulator)).outcomes
    assert reference.error is Error.NONE
    for case, wrong_outcome, outcome in zip(wrong, outcomes[::2], outcomes[1::2], strict=True):
        assert wrong_outcome.error is case.error, f"{case.name}: {wrong_outcome.error!r}"
        if case.command is not None:
            assert wrong_outcome.command == case.command, case.name
        assert outcome.packets == reference.packets, case.name
        if not stalls:
            assert outcome == reference, case.name
