"""Random tiles as the result writer and the skip reader get them, and the places that their results have."""

from dataclasses import dataclass

from hw.config import PRESETS, AcceleratorConfig

CONFIGS = [
    PRESETS["tiny"],
    AcceleratorConfig(name="one", rows=1, lanes=1, digit_bits=8, requant_lanes=1, activation_depth=300),
    AcceleratorConfig(name="narrow", rows=2, lanes=6, digit_bits=1, requant_lanes=2, activation_depth=1000),
    AcceleratorConfig(name="tall", rows=9, lanes=3, digit_bits=4, requant_lanes=3, activation_depth=600),
    AcceleratorConfig(name="slots", rows=6, lanes=8, digit_bits=16, requant_lanes=2, acc_bits=40, activation_depth=700),
]


@dataclass(frozen=True)
class Group:
    """Where the codes of one group of one pixel are: the words of its digits, its slot there, its lanes with a channel.

    ``words`` is empty for a group without a channel.
    """

    pixel: int
    index: int
    words: tuple[int, ...]
    slot: int
    lanes: int


def groups_of(config, tile):
    """The groups of a tile in the order of its results."""
    slots = config.lanes // config.requant_lanes
    digits = tile["digits_last"] + 1
    found = []
    for pixel in range(tile["pixels_last"] + 1):
        for index in range(config.rows // config.requant_lanes):
            word, slot = divmod(tile["slot"] + index, slots)
            first = tile["address"] + pixel * tile["step"] + word * digits
            lanes = max(0, min(config.requant_lanes, tile["channels"] - index * config.requant_lanes))
            words = tuple(range(first, first + digits)) if lanes else ()
            found.append(Group(pixel, index, words, slot, lanes))
    return found


def random_tile(config, rng, *, max_digits, pixels=6, **change):
    """A tile inside the buffer."""
    digits = rng.randint(1, max_digits)
    slots = config.lanes // config.requant_lanes
    slot = rng.randrange(slots)
    words = digits * -(-(slot + config.rows // config.requant_lanes) // slots)
    step = words + rng.choice([0, 0, 1, 3])
    count = rng.randint(1, pixels)
    tile = {
        "step": step,
        "digits_last": digits - 1,
        "slot": slot,
        "channels": rng.choice([1, config.rows, rng.randint(1, config.rows)]),
        "pixels_last": count - 1,
        "address": rng.randint(0, config.activation_depth - count * step - words),
    }
    return tile | change
