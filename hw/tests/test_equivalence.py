"""Proofs: arrays and their netlists are the plain sum of products, and broken ones are refused by each method."""

import copy
import itertools
import random
import re
from dataclasses import replace

import pytest

from hw.dot_product import Form
from hw.mac_array import MacArray
from hw.synth import netlist
from hw.synth.equivalence import proof, run, solver
from hw.synth.equivalence.aig import Aig, ConeError, patterns
from hw.synth.equivalence.circuit import Box, DesignError, Gate, adder_polarity, read_mapped, read_rtl
from hw.synth.equivalence.proof import ProofError, Shape
from hw.synth.equivalence.telescope import Polynomial, Telescope, TelescopeError
from hw.synth.flow import synthesize
from hw.synth.technology import resolve
from hw.tests.synth_support import full_liberty
from hw.verilog import generate

TOP = "mac_array"


def made(build, pdk="mini", liberty=None, **parameters):
    """Verilog, flat netlist, library and shape of a small array."""
    digit_bits = parameters.setdefault("digit_bits", 2)
    array = MacArray(**{"rows": 2, "lanes": 3, "acc_bits": 2 * digit_bits + 4} | parameters)
    shape = Shape.of(array)
    verilog = generate(array, name=TOP)
    target = resolve(pdk, liberty)
    mapped = synthesize(verilog, TOP, target, build=build)
    return verilog, netlist.read(mapped.json, TOP), target.library, shape


def read(verilog, flat, library, shape):
    rtl = read_rtl(verilog, TOP)
    return rtl, read_mapped(flat, library, rtl), shape


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    return tmp_path_factory.mktemp("synth")


@pytest.fixture(scope="module")
def parts(build):
    return made(build, form="nand")


@pytest.fixture(scope="module")
def plain(parts):
    return read(*parts)


def test_every_method_proves_a_small_array(plain):
    rtl, mapped, shape = plain
    done = []
    steps = proof.prove(rtl, mapped, shape, done=done.append)
    assert done == steps
    assert [step.method for step in steps] == ["telescoping", "SAT", "telescoping", "exhaustive", "whole SAT"]
    assert [step.count for step in steps[::2]] == [len(rtl.adders), len(mapped.adders), shape.acc_bits]
    assert steps[3].count == 1 << 12
    assert len(mapped.adders) >= 20
    assert steps[1].count == len(mapped.registers) + len(mapped.outputs) + sum(
        len(adder.inputs) for adder in mapped.adders.values()
    )


@pytest.mark.parametrize(
    "parameters",
    [
        {"form": "and", "lanes": 2, "carry_save": True},
        {"form": "pairs", "lanes": 3, "pipeline": 0},
        {"form": "pairs", "lanes": 2, "pipeline": 2, "rows": 1},
    ],
    ids=str,
)
def test_forms(build, parameters):
    rtl, mapped, shape = read(*made(build, **parameters))
    assert len(proof.prove(rtl, mapped, shape)) == 5


@pytest.mark.parametrize("pdk", ["asap7", "ihp"])
@pytest.mark.slow
def test_inverted_adders_and_none(build, pdk):
    rtl, mapped, shape = read(*made(build, pdk, full_liberty(pdk), form="pairs", rows=1))
    steps = proof.prove(rtl, mapped, shape)
    assert len(steps) == (5 if pdk == "asap7" else 4)
    assert bool(mapped.adders) == (pdk == "asap7")


def test_generic_gates(build):
    rtl, mapped, shape = read(*made(build, "generic", form="nand", rows=1))
    assert len(proof.prove(rtl, mapped, shape)) == 5


def first_stage(design):
    """An adder of row 0 that adds products."""
    return next(name for name in design.adders if re.match(r"row_0\..*sum_0_full_adders\[0\]", name))


def swap_gate(design):
    """NOR in the place of a leaf's NAND, or OR in that of its AND."""
    adder = design.adders[first_stage(design)]
    net = next(net for net in adder.inputs if net in design.gates)
    while len(design.gates[net].inputs) == 1:
        net = design.gates[net].inputs[0]
    inputs, table = design.gates[net]
    assert len(inputs) == 2
    assert table in (0b0111, 0b1000)
    design.gates[net] = Gate(inputs, {0b0111: 0b0001, 0b1000: 0b1110}[table])


def move_carry(design):
    """A carry that goes to an adder of another column, in the place of what belongs there."""
    carry = design.adders[first_stage(design)].carry
    name, adder = next(
        (name, adder)
        for name, adder in design.adders.items()
        if re.match(r"row_0\..*sum_1_full_adders", name) and carry not in adder.inputs
    )
    design.adders[name] = replace(adder, inputs=(*adder.inputs[:-1], carry))


def lose_adder(design):
    """One input for the sum, and no carry."""
    adder = design.adders.pop(first_stage(design))
    design.gates[adder.sum] = Gate(adder.inputs[:1], 0b10)
    design.gates[adder.carry] = Gate((), 0)


BREAKAGES = [swap_gate, move_carry, lose_adder]


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_each_method_refuses_a_broken_netlist(plain, breakage):
    rtl, mapped, shape = plain
    broken = copy.deepcopy(mapped)
    breakage(broken)
    with pytest.raises(ProofError, match=r"^(Input of adder|Register) .* must be the same in Verilog and netlist"):
        proof.prove_mapping(rtl, broken)
    with pytest.raises(ProofError, match=r"^The (row 0 must add|netlist's sums do not telescope: Outputs of adder)"):
        proof.prove_netlist_sums(rtl, broken, shape)
    with pytest.raises(ProofError, match=r"^Bit \d+ of row 0 of the netlist must be that of the sum of products for"):
        proof.prove_exhaustively(broken, rtl, shape, "netlist")
    with pytest.raises(ProofError, match=r"^Bit \d+ of row 0 of the netlist must be that of the sum of products$"):
        proof.prove_whole(broken, rtl, shape, "netlist")


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_each_method_refuses_broken_verilog(plain, breakage):
    rtl, mapped, shape = plain
    broken = copy.deepcopy(rtl)
    breakage(broken)
    with pytest.raises(ProofError, match=r"^The (row 0 must add|Verilog's sums do not telescope: Outputs of adder)"):
        proof.prove_rtl_sums(broken, shape)
    with pytest.raises(ProofError, match=r"must be the same in Verilog and netlist"):
        proof.prove_mapping(broken, mapped)
    with pytest.raises(ProofError, match=r"^Bit \d+ of row 0 of the Verilog"):
        proof.prove_exhaustively(broken, broken, shape, "Verilog")


def test_solver_sees_what_no_random_case_does():
    aig = Aig()
    bits = [aig.input(f"x{n}") for n in range(40)]
    every = all_but_one = bits[0]
    for bit in bits[1:]:
        every = aig.and_(every, bit)
    for bit in bits[1:-1]:
        all_but_one = aig.and_(all_but_one, bit)
    same = aig.and_(bits[1], bits[2])
    with pytest.raises(solver.Different) as caught:
        solver.compare(aig, [(same, same), (aig.xor(*bits[:2]), aig.xor(*bits[:2])), (every, all_but_one)], seconds=60)
    assert caught.value.index == 2


def test_solver_needs_its_time(plain, monkeypatch):
    rtl, mapped, shape = plain
    monkeypatch.setattr(solver, "CONFLICTS", 0)
    with pytest.raises(ProofError, match=r"^SAT must end in 0.001 s for the whole of row 0, and has not$"):
        proof.prove_whole(mapped, rtl, shape, "netlist", seconds=0.001)
    with pytest.raises(ProofError, match=r"^SAT must end in 0.001 s for Verilog and netlist, and has not$"):
        proof.prove_mapping(rtl, mapped, seconds=0.001)


def swapped_cell(flat, kinds):
    """``flat`` with the first cell of one kind changed to the other, whose pins have the same names."""
    name = next(name for name, cell in flat.cells.items() if cell.kind == kinds[0] and name.startswith("$"))
    return replace(flat, cells={**flat.cells, name: replace(flat.cells[name], kind=kinds[1])})


def test_a_cell_of_another_function_is_seen(parts):
    verilog, flat, library, shape = parts
    kinds = ("sky130_fd_sc_hd__nand2_1", "sky130_fd_sc_hd__nor2_1")
    rtl, broken, _ = read(verilog, swapped_cell(flat, kinds), library, shape)
    with pytest.raises(ProofError, match=r"must be the same in Verilog and netlist"):
        proof.prove_mapping(rtl, broken)


def test_an_adder_module_that_does_not_add_is_refused(parts):
    verilog = parts[0]
    start = re.search(r"^module full_adders_\d+\(", verilog, re.MULTILINE).start()
    end = verilog.index("endmodule", start)
    for old, new, message in (
        (" ^ ", " | ", "must add its inputs, and does not"),
        ("sum = ", "sum = {sum[0], 1'b0} + ", "must be of gates"),
    ):
        broken = verilog[:start] + verilog[start:end].replace(old, new) + verilog[end:]
        assert broken != verilog
        with pytest.raises(DesignError, match=f"^Adder.* module 'full_adders_.*{message}"):
            read_rtl(broken, TOP)


def test_registers_must_be_those_of_the_verilog(parts):
    verilog, flat, library, shape = parts
    names = {name: nets for name, nets in flat.names.items() if "accumulator" not in name and "acc" not in name}
    with pytest.raises(DesignError, match=r"^Flip-flop .* must bear the name of a register of the Verilog$"):
        read(verilog, replace(flat, names=names), library, shape)
    aliases = read_rtl(verilog, TOP).aliases
    single = next(nets for name, nets in flat.names.items() if len(nets) == 1 and f"{name}[0]" in aliases)
    names = {name: nets for name, nets in flat.names.items() if single[0] not in nets}
    held = {aliases[f"{name}[{index}]"] for name, nets in names.items() for index in range(len(nets))
            if f"{name}[{index}]" in aliases}  # fmt: skip
    other = next(name for name, register in aliases.items() if register in held and name[:-3] not in names
                 and name.endswith("[0]"))  # fmt: skip
    with pytest.raises(DesignError, match=r"^Register .* must be one flip-flop, not two$"):
        read(verilog, replace(flat, names={**names, other[:-3]: single}), library, shape)


def changed(design, **changes):
    return replace(copy.deepcopy(design), **changes)


def test_netlists_that_cannot_be_followed_are_refused(plain):
    rtl, mapped, _ = plain
    name, register = next(iter(mapped.registers.items()))
    cases = [
        ({"registers": {**mapped.registers, name: replace(register, clock="0")}}, "must all have the clock clk itself"),
        (
            {"registers": {**mapped.registers, name: replace(register, never=(Gate((), 1),))}},
            "must have its asynchronous set and reset tied off",
        ),
        ({"outputs": {**mapped.outputs, "complete[0]": 10**9}}, "must have a driver"),
        (
            {"outputs": {**mapped.outputs, "complete[0]": -1}, "gates": {**mapped.gates, -1: Gate((-1,), 0b01)}},
            "must not depend on itself",
        ),
    ]
    for changes, message in cases:
        with pytest.raises(ProofError, match=f"^Verilog and netlist cannot be compared: .*{message}$"):
            proof.prove_mapping(rtl, changed(mapped, **changes))
    with pytest.raises(ProofError, match=r"^Output 'more\[0\]' must be in Verilog and netlist$"):
        proof.prove_mapping(rtl, changed(mapped, outputs={**mapped.outputs, "more[0]": "0"}))


def test_an_adder_outside_all_sums_is_seen(plain):
    rtl, _, shape = plain
    idle = replace(next(iter(rtl.adders.values())), inputs=("0", "0", "1"), sum=-1, carry=-2)
    with pytest.raises(ProofError, match=r"^Adder 'idle' must be part of a row's sum, and is not$"):
        proof.prove_rtl_sums(changed(rtl, adders={**rtl.adders, "idle": idle}), shape)


def test_sums_must_have_the_right_latency(plain):
    rtl, _, shape = plain
    with pytest.raises(ProofError, match=r"^The row 0 must add .* times, and adds it \d+ times$"):
        proof.prove_rtl_sums(rtl, replace(shape, latency=3))


@pytest.mark.parametrize("count", [2, 3])
def test_adder_polarity_is_found_on_every_assignment(count):
    rows = list(itertools.product((0, 1), repeat=count))
    size = (1 << (1 << count)) - 1
    total = sum((sum(row) & 1) << i for i, row in enumerate(rows))
    carry = sum((sum(row) >> 1) << i for i, row in enumerate(rows))
    assert adder_polarity(count, total, carry) == (False, False, False)
    assert adder_polarity(count, total ^ size, carry) == (False, True, False)
    assert adder_polarity(count, total ^ size, carry ^ size) == (False, True, True)
    for bit in range(1 << count):
        assert adder_polarity(count, total ^ 1 << bit, carry) is None
        assert adder_polarity(count, total, carry ^ 1 << bit) is None
    if count == 2:  # a half adder of complements, whose outputs are complements
        assert adder_polarity(2, total ^ size, 0b1110) == (True, True, True)


def test_truth_tables_come_back():
    draw = random.Random(1)
    aig = Aig()
    inputs = [aig.input(f"x{n}") for n in range(4)]
    nodes = [literal >> 1 for literal in inputs]
    for _ in range(200):
        table = draw.getrandbits(16)
        literal = aig.of_table(table, inputs)
        assert aig.simulate([literal], dict(zip(nodes, patterns(4), strict=True)), 0xFFFF) == [table]
        polynomial = Telescope(aig, {}).polynomial(literal)
        for row in range(16):
            ones = {node for n, node in enumerate(nodes) if row >> n & 1}
            assert sum(value for term, value in polynomial if term <= ones) == table >> row & 1
    with pytest.raises(ConeError, match=r"^Cone must have at most 3 inputs, not 4$"):
        aig.table(aig.of_table(0x6996, inputs), 3)


def test_adders_are_passed_in_their_proportion_only():
    aig = Aig()
    a, b, s, c = (aig.input(name) for name in "absc")
    telescope = Telescope(aig, {"h": Box(name="h", inputs=((a, 1), (b, 1)), outputs=((s >> 1, 1), (c >> 1, 2)))})
    sums = telescope.weighted([(s, 4), (c, 8)], 6)
    telescope.reduce(sums, 0)
    assert sums.terms == {frozenset((a >> 1,)): 4, frozenset((b >> 1,)): 4}
    assert telescope.passed == {"h"}
    for weights in ((4, 4), (0, 8), (4, 0)):
        sums = telescope.weighted(zip((s, c), weights, strict=True), 6)
        with pytest.raises(TelescopeError, match=rf"count as \[1, 2\], and count as \[{weights[0]}, {weights[1]}\]$"):
            telescope.reduce(sums, 0)
    top = telescope.weighted([(s, 32)], 6)  # the carry of the topmost column counts for nothing
    telescope.reduce(top, 0)
    assert len(top.terms) == 2


def test_words_keep_their_carry():
    aig = Aig()
    word = Box(
        name="w",
        inputs=((aig.input("a"), 1), (aig.input("b"), 1)),
        outputs=((aig.input("y") >> 1, 1),),
        modulus=1,
    )
    telescope = Telescope(aig, {"w": word})
    telescope.reduce(telescope.weighted([(aig.input("y"), 1)], 1), 0)
    with pytest.raises(TelescopeError, match=r"^Addition 'w' must keep its carry$"):
        telescope.reduce(telescope.weighted([(aig.input("y"), 1)], 2), 0)


def test_polynomials_are_modulo_a_power_of_two():
    sums = Polynomial(3)
    sums.add(frozenset((1,)), 5)
    sums.add(frozenset((1,)), 3)
    assert sums.terms == sums.uses == {}


def test_run_writes_what_it_proved(build, tmp_path, capsys):
    path = tmp_path / "proofs.csv"
    chosen = run.subjects([2], lanes=3, rows=1, forms=["nand"])
    rows = run.run(chosen, build=build, path=path, command="pactolus prove")
    lines = path.read_text().splitlines()
    assert lines[0] == "# pactolus prove"
    assert len(lines) == 2 + len(rows) == 7
    assert re.search(r"^2 +3×1 +16 +nand +0 .* 2\^12 +16 +\d+\.\d", capsys.readouterr().out, re.MULTILINE)


def test_run_says_which_array_is_not_proven(build, tmp_path, monkeypatch):
    monkeypatch.setattr(proof, "_zero", lambda rtl, mapped: {"complete[0]"})
    with pytest.raises(ProofError, match=r"^Array d=2 3×1 nand on mini is not proven: Register 'complete\[0\]' must"):
        run.run(run.subjects([2], lanes=3, rows=1, forms=["nand"]), build=build, path=tmp_path / "p.csv", command="")


def test_run_needs_gates(tmp_path):
    with pytest.raises(ValueError, match=r"^Proofs need a technology of cells or gates, not 'ice40'$"):
        run.run([], pdk="ice40", path=tmp_path / "p.csv", command="")


def test_every_array_of_the_area_report_with_its_clock():
    """On mini: the best form at the library's own clock and at 500 MHz, with two registers at 1 GHz, and ANDs."""
    found = {(s.form, s.pipeline, s.clock_ns) for s in run.reported(resolve("mini"), [2])}
    assert found == {(Form.NAND, 0, 10.0), (Form.NAND, 0, 2.0), (Form.NAND, 2, 1.0), (Form.AND, 0, 10.0)}
    mini = run.reported(resolve("mini"), [1, 2, 4, 8, 16])
    assert {(s.digit_bits, s.lanes, s.rows, s.form, s.pipeline, s.acc_bits) for s in mini} >= {
        (16, 8, 8, Form.AND, 1, 44),
        (16, 8, 8, Form.PAIRS, 1, 44),
        (8, 16, 8, Form.PAIRS, 2, 28),
    }


def test_sizes_are_those_of_the_report():
    assert [str(s.form) for s in run.subjects([2, 4], lanes=3, forms=["best"])] == ["nand", "pairs"]
    assert run.subjects([2], lanes=3, acc_bits=9)[0].acc_bits == 9
    found = run.subjects([1, 16], forms=["and"])
    assert [(s.digit_bits, s.lanes, s.rows) for s in found] == [(1, 10, 2), (1, 16, 1), (1, 128, 16), (16, 8, 8)]
    assert all(s.acc_bits == 2 * s.digit_bits + 12 for s in found)
