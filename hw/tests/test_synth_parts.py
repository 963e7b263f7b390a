# amaranth: UnusedElaboratable=no
"""Where an array's area is: exact areas by part, which are a regression, and what they must add up to."""

import pytest

from hw.mac_array import MacArray
from hw.synth import netlist as netlists
from hw.synth.flow import is_flip_flop, synthesize
from hw.synth.netlist import FlatCell, FlatNetlist
from hw.synth.parts import BODY, PARTS, array_parts, costs
from hw.synth.technology import resolve
from hw.verilog import generate

ROWS = 2

# Areas in µm² on mini: d, lanes and options of an array, then its area and the larger of its parts.
EXACT = {
    "and": (2, 4, {"form": "and"}, 2488.6368, (200.192, 360.3456, 1558.9952)),
    "nand": (2, 4, {"form": "nand"}, 2383.536, (120.1152, 360.3456, 1533.9712)),
    "pairs": (2, 4, {"form": "pairs"}, 2703.8432, (380.3648, 160.1536, 1604.0384)),
    "pairs, odd lanes, pipeline": (
        4,
        3,
        {"form": "pairs", "pipeline": 1},
        5222.5088,
        (820.7872, 930.8928, 2259.6672),
    ),
    "carry-save accumulator": (2, 4, {"form": "nand", "carry_save": True}, 3643.4944, (120.1152, 387.872, 2762.6496)),
}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Netlist, graph, parts and their costs of a configuration of EXACT."""
    target = resolve()
    library = target.library

    def run(name):
        d, lanes, options, _, _ = EXACT[name]
        component = MacArray(rows=ROWS, lanes=lanes, digit_bits=d, acc_bits=2 * d + 12, **options)
        netlist = synthesize(
            generate(component, name="mac_array"), "mac_array", target, build=tmp_path_factory.getbasetemp() / "synth"
        )
        flat = netlists.read(netlist.json, netlist.top)
        parts = array_parts(
            flat,
            flat.ports["i__payload"][1][: lanes * d],
            lambda cell: is_flip_flop(cell, library),
            (library.full_adder.cell, library.half_adder.cell),
        )
        return netlist, flat, parts, costs(flat, parts, lambda cell: library.cells[cell].area)

    return run


@pytest.mark.parametrize("name", EXACT)
def test_exact_areas(split, name):
    """For one version of pyosys a change here is a change of the RTL, the flow or mini.lib: say so in its commit."""
    d, lanes, options, area, largest = EXACT[name]
    netlist, flat, parts, areas = split(name)
    assert (netlist.area, tuple(areas[part] for part in BODY[:3])) == (area, largest)
    assert sum(areas[part] for part in BODY) == pytest.approx(netlist.area, abs=1e-6)
    assert {part: areas[part] for part in netlist.apart} == pytest.approx(
        {part: apart.area for part, apart in netlist.apart.items()}, abs=1e-6
    )
    assert set(parts) == set(flat.cells)
    registers = [parts[cell.name] for cell in flat.cells.values() if "df" in cell.kind]
    if options.get("carry_save"):
        assert ROWS * (2 * d + 12) < registers.count("accumulator") <= 2 * ROWS * (2 * d + 12)
    else:
        assert registers.count("accumulator") == ROWS * (2 * d + 12)
    assert registers.count("weight_register") == ROWS * lanes * d
    assert registers.count("activation_register") >= lanes * d
    assert bool(registers.count("pipeline")) == bool(options.get("pipeline"))
    if options["form"] == "nand":
        assert areas["products"] == pytest.approx(ROWS * lanes * d * d * 3.7536, abs=1e-6)


def _netlist(*cells):
    """A netlist of ``(name, kind, inputs, output)``; nets are numbers, 0 to 9 input ports."""
    made = {
        name: FlatCell(
            name=name,
            kind=kind,
            inputs={str(index): net for index, net in enumerate(inputs)},
            outputs={"Y": output},
        )
        for name, kind, inputs, output in cells
    }
    return FlatNetlist(top="top", ports={"i": ("input", tuple(range(10)))}, cells=made, names={})


ARRAY = (
    ("weight_register.w", "ff", (5,), 20),
    ("gate", "and", (0, 9), 21),
    ("x", "ff", (21,), 22),
    ("buffer", "buf", (22,), 23),
    ("product", "and", (20, 23), 24),
    ("adder", "fa", (24, 24, 24), 25),
    ("inverter", "inv", (25,), 26),
    ("last", "fa", (26, 40, 26), 27),
    ("carry", "xor", (27, 25), 28),
    ("acc", "ff", (28,), 29),
    ("horner", "and", (29, 31), 40),
    ("flag_logic", "and", (7, 9), 30),
    ("flag", "ff", (30,), 31),
)


def test_parts_of_a_netlist_by_hand():
    parts = array_parts(_netlist(*ARRAY), {0}, lambda kind: kind == "ff", {"fa"})
    assert parts == {
        "weight_register.w": "weight_register",
        "gate": "distribution",
        "x": "activation_register",
        "buffer": "distribution",
        "product": "products",
        "adder": "tree",
        "inverter": "tree",
        "last": "accumulator",
        "carry": "accumulator",
        "acc": "accumulator",
        "horner": "accumulator",
        "flag_logic": "control",
        "flag": "control",
    }
    assert costs(_netlist(*ARRAY), parts, lambda kind: 1) == dict.fromkeys(PARTS, 0) | {
        "products": 1, "tree": 2, "accumulator": 4, "activation_register": 1, "distribution": 2, "control": 2,
        "weight_register": 1,
    }  # fmt: skip


def test_pipeline_registers_by_hand():
    staged = [cell for cell in ARRAY if cell[0] != "last"]
    staged += [("p", "ff", (26,), 50), ("q", "ff", (50,), 51), ("last", "fa", (51, 40, 51), 27)]
    parts = array_parts(_netlist(*staged), {0}, lambda kind: kind == "ff", {"fa"})
    assert (parts["p"], parts["q"], parts["acc"], parts["last"]) == (
        "pipeline", "pipeline", "accumulator", "accumulator",
    )  # fmt: skip


def test_loop_of_gates():
    loop = _netlist(("a", "inv", (20,), 21), ("b", "inv", (21,), 20))
    with pytest.raises(ValueError, match=r"^Netlist of 'top' must have no loops of gates$"):
        array_parts(loop, (), lambda kind: False)
