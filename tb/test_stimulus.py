"""The stimulus against golden, without any RTL: a model of the Datapath's contract consumes the streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from golden.execute import accumulate, execute
from golden.network import Conv2d, IntegerNetwork
from hw.config import PRESETS, AcceleratorConfig
from tb import examples
from tb.stimulus import Layer, digit_words, pack

CONFIGS = [
    PRESETS["tiny"],
    PRESETS["small"],
    PRESETS["int8"],
    AcceleratorConfig(name="odd", rows=5, lanes=3, digit_bits=1, requant_lanes=2, acc_bits=24),
    AcceleratorConfig(name="one", rows=1, lanes=1, digit_bits=16, acc_bits=40),
]
NETWORKS = [
    examples.plain_network(8),
    examples.plain_network(3),
    examples.plain_network(1),
    examples.residual_network(4),
    examples.residual_network(2),
]


class Unpacker:
    """Takes fields off a packed word, least significant first."""

    def __init__(self, word: int) -> None:
        self.word = word

    def take(self, width: int, *, signed: bool = False) -> int:
        value = self.word & ((1 << width) - 1)
        self.word >>= width
        return value - (1 << width) if signed and value >> (width - 1) else value


def model(config: AcceleratorConfig, beats: Iterator[int], records: list[int], skips: list[int]) -> Iterator[list[Any]]:
    """Per position [multiplied accumulators, result word list], as the Datapath's contract says."""
    bank: list[dict[str, int]] = []
    records_left, skips_left = iter(records), iter(skips)
    modulus = 1 << config.acc_bits
    sums = [0] * (config.rows + 1)
    for beat in beats:
        fields = Unpacker(beat)
        x = [fields.take(config.digit_bits) for _ in range(config.lanes)]
        w = [[fields.take(config.digit_bits) for _ in range(config.lanes)] for _ in range(config.rows)]
        first, shift, last, ones, tile_last = (fields.take(1) for _ in range(5))
        assert fields.word == 0
        for row, weights in enumerate([*w, [ones] * config.lanes]):
            before = 0 if first else sums[row] << (config.digit_bits if shift else 0)
            sums[row] = (before + sum(a * b for a, b in zip(weights, x, strict=True))) % modulus
        if not last:
            continue
        if not bank:
            for _ in range(config.rows):
                fields = Unpacker(next(records_left))
                bank.append(
                    {
                        "m": fields.take(config.multiplier_bits, signed=True),
                        "ms": fields.take(config.skip_multiplier_bits, signed=True),
                        "b": fields.take(config.bias_bits, signed=True),
                        "s": fields.take(config.max_shift.bit_length()),
                        "k": fields.take(config.max_output_bits.bit_length()),
                        "w": fields.take(5),
                        "odd": fields.take(1),
                        "use_skip": fields.take(1),
                    }
                )
                assert fields.word == 0
        assert len({(record["k"], record["w"], record["odd"], record["use_skip"]) for record in bank}) == 1
        accs, words = [], []
        for start in range(0, config.rows, config.requant_lanes):
            skip = Unpacker(next(skips_left) if bank[0]["use_skip"] else 0)
            values = []
            for row in range(start, start + config.requant_lanes):
                operand = skip.take(config.max_output_bits)
                if row >= config.rows:
                    values.append((0, config.acc_bits))
                    continue
                c = bank[row]
                p, offset = (2, (1 << c["w"]) - 1) if c["odd"] else (1, 1 << (c["w"] - 1))
                acc = (p * sums[row] - offset * sums[-1]) % modulus
                acc -= modulus if acc >= modulus // 2 else 0
                accs.append(acc)
                value = (acc * c["m"] + operand * c["ms"] + c["b"]) >> c["s"]
                values.append((min(max(value, 0), (1 << c["k"]) - 1) if c["k"] else value, config.acc_bits))
            words.append(pack([*values, (start + config.requant_lanes >= config.rows, 1)]))
        yield [accs, words]
        if tile_last:
            bank = []
    assert not bank and next(records_left, None) is None and next(skips_left, None) is None


def layers(network: IntegerNetwork, config: AcceleratorConfig, frames: int = 1) -> Iterator[Layer]:
    config.check(network)
    tensors = execute(network, examples.random_codes(network, frames, seed=5))
    for operation in network.operations:
        if isinstance(operation, Conv2d):
            yield Layer.of(network, operation, config, tensors)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_model_of_the_datapath_reproduces_golden(config: AcceleratorConfig, network: IntegerNetwork) -> None:
    for layer in layers(network, config, frames=2):
        positions = list(model(config, layer.beats(), layer.records(), layer.skip_words()))
        words = [word for _, out in positions for word in out]
        assert len(words) == layer.result_count
        assert layer.difference(layer.decode(words)) == (0, None)
        acc = accumulate(layer.source, layer.operation, network)
        by_position = acc.transpose(0, 2, 3, 1).reshape(layer.positions, -1)
        for n, (accs, _) in enumerate(positions):
            tile, position = divmod(n, layer.positions)
            channels = layer.tiles[tile][1]
            assert accs[: len(channels)] == by_position[position, channels.start : channels.stop].tolist()


def test_networks_use_the_whole_range() -> None:
    for network in NETWORKS:
        tensors = execute(network, examples.random_codes(network, 2, seed=5))
        for operation in network.operations:
            if not isinstance(operation, Conv2d) or operation.requantize is None:
                continue
            output = network.tensor(operation.output)
            values = tensors[output.name]
            assert values.min() == 0 and values.max() == output.max_code, operation.name


def test_beat_count_and_flags() -> None:
    layer = next(layers(NETWORKS[0], PRESETS["tiny"]))
    assert layer.operation.bits == 8 and layer.activation_bits == 8
    assert len(layer.schedule) == 16 * -(-18 // 4)
    assert layer.beat_count == sum(1 for _ in layer.beats()) == 2 * 64 * len(layer.schedule)
    sums = [i + j for i, j, _, _ in layer.schedule]
    assert sums == sorted(sums, reverse=True)
    flags = [entry[3] for entry in layer.schedule]
    assert flags[0] & 1 and not any(flag & 1 for flag in flags[1:])
    assert flags[-1] >> 2 & 1 and not any(flag >> 2 & 1 for flag in flags[:-1])
    assert [n for n, flag in enumerate(flags) if flag >> 1 & 1] == [
        n for n in range(1, len(sums)) if sums[n] < sums[n - 1]
    ]
    assert [flag >> 3 & 1 for flag in flags] == [int(i == 0) for i, *_ in layer.schedule]


@pytest.mark.parametrize("digit_bits", [1, 2, 4, 8, 16])
def test_digit_words(digit_bits: int) -> None:
    codes = np.array([[0xBEEF, 1, 2], [3, 0xFFFF, 0]])
    digits = 16 // digit_bits
    words = digit_words(codes, lanes=2, digit_bits=digit_bits, digits=digits)
    mask = (1 << digit_bits) - 1
    for n, row in enumerate(codes.tolist()):
        for i in range(digits):
            digit = [(code >> (digit_bits * i)) & mask for code in row]
            assert words[n][i] == [digit[0] | digit[1] << digit_bits, digit[2]]


@pytest.mark.parametrize(("value", "width"), [(16, 4), (-9, 4), (2, 1), (-1, 0)])
def test_pack_refuses_what_does_not_fit(value: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"^Field must fit {width} bits, not {value}$"):
        pack([(0, 3), (value, width)])


def test_decode_checks_count_and_last() -> None:
    layer = next(layers(NETWORKS[0], PRESETS["tiny"]))
    words = [word for _, out in model(PRESETS["tiny"], layer.beats(), layer.records(), []) for word in out]
    with pytest.raises(ValueError, match=r"^Results of layer 'first' must be 256 words, not 255$"):
        layer.decode(words[:-1])
    with pytest.raises(ValueError, match=r"^Results of layer 'first' must have 'last' on each position's last word$"):
        layer.decode(words[1:] + words[:1])


def test_difference_names_the_first_place() -> None:
    layer = next(layers(NETWORKS[0], PRESETS["tiny"], frames=2))
    results = layer.expected.astype(np.int64)
    results[1, 2, 3, 4] += 1
    results[1, 4, 0, 0] += 1
    count, difference = layer.difference(results)
    expected = int(layer.expected[1, 2, 3, 4])
    assert count == 2
    assert (
        str(difference) == f"layer first, frame 1, channel 2, row 3, column 4: expected {expected}, got {expected + 1}"
    )
