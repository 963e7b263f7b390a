"""From Verilog to a netlist of one technology: Yosys and ABC, cached by content.

Standard cells go through these steps:

1. The modules ``full_adders_<width>`` and ``half_adders_<width>`` of the Verilog become one adder per bit, adders with
   constant inputs become the logic that is left of them, and all others the library's adder cells. ABC never sees the
   inside of an adder, which would cost more area as gates. A library without adder cells keeps the modules as they
   are written.
2. Everything is flattened except the modules of :data:`APART`, whose areas are reported apart. Equal cells are
   merged, flip-flops are not: the copies of a control bit that share its fan-out are there on purpose.
3. Flip-flops are mapped and nets that fan out widely get buffer trees (:mod:`hw.synth.fanout`).
4. ABC maps, buffers and sizes the rest, first for area and, should that miss the clock, a second time without
   restructuring. It always knows what drives an input and what an output drives (``-constr``): otherwise it puts in no
   buffers.
5. The netlist is counted, flattened whole and written for simulation and timing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hw.synth.fanout import BRANCH, LEAF, WIDE_GATE, buffer_trees
from hw.synth.liberty import Adder, Library
from hw.synth.technology import Kind, Target

__all__ = [
    "Netlist",
    "Part",
    "SynthesisError",
    "is_flip_flop",
    "liberty_file",
    "luts",
    "run_yosys",
    "store",
    "synthesize",
]

FORMAT = 2
"""Of the cached result; part of the cache key."""

APART = ("weight_register", "ones_row", "drain")
"""Modules, by what their names contain, that stay modules until all is mapped, and are counted apart."""

GENERIC_GATES = "AND,NAND,OR,NOR,XOR,XNOR,ANDNOT,ORNOT,MUX"

# ABC does not see flip-flops, buffer trees and adder cells, so its paths get a part of the clock only. Without adders
# that is nearly all of it; with them a path falls to pieces, and the carry propagation after the tree gets this much.
SHARE_ALONE = 0.85
SHARE_BESIDE_ADDERS = 0.25

# ABC's scripts, {D} being the option with the delay target. The first one restructures for area, which unravels the
# prefix adders; the second one leaves the structure as it is.
ABC_SCRIPTS = {
    "small": "strash; &get -n; &fraig -x; &put; scorr; dc2; strash; &get -n; &dch -f; &nf {D}; &put",
    "fast": "strash; &get -n; &nf {D}; &put",
}
ABC_SIZING = "buffer -N 24 -G 600; topo; upsize {D}; dnsize {D}; stime -p"


class SynthesisError(RuntimeError):
    """Yosys stopped; the message is one sentence, then the last lines of its log."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Cells of a netlist.

    Members
    -------
    cells : mapping of :class:`str` to :class:`int`
        How many there are of each cell type.
    area : :class:`float` or ``None``
        In the library's unit, µm². ``None`` without a library.
    ffs : :class:`int`
        Flip-flops.
    """

    cells: Mapping[str, int]
    area: float | None
    ffs: int


@dataclass(frozen=True, kw_only=True)
class Netlist:
    """What a synthesis run gave.

    Members
    -------
    cells, area, ffs
        As of :class:`Part`, of all that is not in ``apart``.
    luts : :class:`int` or ``None``
        Lookup tables, those of carry cells included, as for ``cells``. FPGAs only.
    full_adders, half_adders : :class:`int`
        Adder cells, as for ``cells``.
    apart : mapping of :class:`str` to :class:`Part`
        What the modules of :data:`APART` have, by those names; empty parts where there are no such modules.
    folder : :class:`str`
        Where the netlist, the logs and the scripts lie.
    """

    top: str
    cells: Mapping[str, int]
    area: float | None
    ffs: int
    luts: int | None
    full_adders: int
    half_adders: int
    apart: Mapping[str, Part]
    folder: str

    @property
    def verilog(self) -> Path:
        """The flat netlist."""
        return Path(self.folder) / "netlist.v"

    @property
    def json(self) -> Path:
        """The flat netlist as Yosys's JSON: nets keep their names, cells those of the modules that they come from."""
        return Path(self.folder) / "netlist.json"


_ADDERS = re.compile(r"^\s*module\s+\\?((full|half)_adders_(\d+))\b", re.MULTILINE)

# One adder per bit, and what is left of an adder with constant inputs. _TECHMAP_* are Yosys's own parameters.
_BITWISE = """\
(* blackbox *) module pactolus_full_adder(input a, b, c, output sum, carry); endmodule
(* blackbox *) module pactolus_half_adder(input a, b, output sum, carry); endmodule
"""
_FOLD = """\
(* techmap_celltype = "pactolus_full_adder" *)
module pactolus_fold_full(input a, b, c, output sum, carry);
  parameter _TECHMAP_CONSTMSK_a_ = 0, _TECHMAP_CONSTMSK_b_ = 0, _TECHMAP_CONSTMSK_c_ = 0;
  parameter _TECHMAP_CONSTVAL_a_ = 0, _TECHMAP_CONSTVAL_b_ = 0, _TECHMAP_CONSTVAL_c_ = 0;
  localparam constants = _TECHMAP_CONSTMSK_a_ + _TECHMAP_CONSTMSK_b_ + _TECHMAP_CONSTMSK_c_;
  localparam ones = (_TECHMAP_CONSTMSK_a_ && _TECHMAP_CONSTVAL_a_) + (_TECHMAP_CONSTMSK_b_ && _TECHMAP_CONSTVAL_b_)
    + (_TECHMAP_CONSTMSK_c_ && _TECHMAP_CONSTVAL_c_);
  wire _TECHMAP_FAIL_ = constants == 0;
  wire x = _TECHMAP_CONSTMSK_a_ ? b : a;
  wire y = _TECHMAP_CONSTMSK_c_ ? b : c;
  generate
    if (constants == 1 && ones == 0)
      pactolus_half_adder half(.a(x), .b(y), .sum(sum), .carry(carry));
    else begin
      assign sum = a ^ b ^ c;
      assign carry = (a & b) | (c & (a | b));
    end
  endgenerate
endmodule
(* techmap_celltype = "pactolus_half_adder" *)
module pactolus_fold_half(input a, b, output sum, carry);
  parameter _TECHMAP_CONSTMSK_a_ = 0, _TECHMAP_CONSTMSK_b_ = 0;
  wire _TECHMAP_FAIL_ = !(_TECHMAP_CONSTMSK_a_ || _TECHMAP_CONSTMSK_b_);
  assign sum = a ^ b;
  assign carry = a & b;
endmodule
"""


def _bitwise_adders(verilog: str) -> str:
    """Verilog of the adder modules that ``verilog`` has, each bit an instance of its own."""
    modules = []
    for name, kind, width in sorted({match.groups() for match in _ADDERS.finditer(verilog)}):
        ports = ("a", "b", "c") if kind == "full" else ("a", "b")
        connections = ", ".join(f".{port}({port}[i])" for port in (*ports, "sum", "carry"))
        modules.append(
            f"module {name}(input [{int(width) - 1}:0] {', '.join(ports)}, "
            f"output [{int(width) - 1}:0] sum, carry);\n"
            f"  genvar i;\n"
            f"  generate for (i = 0; i < {width}; i = i + 1) begin : bits\n"
            f"    pactolus_{kind}_adder adder({connections});\n"
            f"  end endgenerate\n"
            f"endmodule\n"
        )
    return _BITWISE + "".join(modules)


def _adder_map(kind: str, adder: Adder | None) -> str:
    """A techmap from the adder of one bit to the library's cell, or to gates where it has none."""
    ports = ("a", "b", "c") if kind == "full" else ("a", "b")
    head = (
        f'(* techmap_celltype = "pactolus_{kind}_adder" *)\n'
        f"module pactolus_map_{kind}(input {', '.join(ports)}, output sum, carry);\n"
    )
    if adder is None:
        carry = "(a & b) | (c & (a ^ b))" if kind == "full" else "a & b"
        return head + f"  assign sum = {' ^ '.join(ports)};\n  assign carry = {carry};\nendmodule\n"
    pins = [f".{pin}({port})" for pin, port in zip(adder.inputs, ports)]
    body = "  wire s, c_out;\n"
    pins += [f".{adder.sum}(s)", f".{adder.carry}(c_out)"]
    body += f"  {adder.cell} _TECHMAP_REPLACE_({', '.join(pins)});\n"
    body += f"  assign sum = {'~' if adder.sum_inverted else ''}s;\n"
    body += f"  assign carry = {'~' if adder.carry_inverted else ''}c_out;\n"
    return head + body + "endmodule\n"


_MERGE = "opt_merge t:*dff* t:*DFF* %u %n"

_KEEP = "setattr -mod -set keep_hierarchy 1 " + " ".join(f"*{name}*" for name in APART)

_FLATTEN = f"""proc
        {_KEEP}
        flatten
        setattr -unset init w:*
        opt_expr -full
        repeat techmap -map fold.v t:pactolus_full_adder t:pactolus_half_adder; opt_expr -full; opt_clean
        {_MERGE}
        opt_muxtree
        opt_reduce"""
"""One module but for those of APART, with adders of constant inputs folded: cells and generic gates begin so.
Flip-flops have no initial values."""


def _cells_script(
    target: Target, library: Library, top: str, picoseconds: int, black_boxes: Sequence[str], booth: bool
) -> dict[str, str]:
    """The files of a run onto standard cells, by name: ``prepare.ys``, then ``map_small.ys`` or ``map_fast.ys``."""
    avoid = " ".join(f"-dont_use {pattern}" for pattern in target.technology.avoid)
    ties = [library.tie(value) for value in (1, 0)]
    hilomap = "hilomap -singleton " + " ".join(
        f"-{flag} {tie[0]} {tie[1]}" for flag, tie in zip(("hicell", "locell"), ties) if tie
    )
    values = {"avoid": avoid, "picoseconds": picoseconds, "hilomap": hilomap if all(ties) else ""}
    prepare = f"""
        read_verilog design.v
        read_verilog -overwrite adders.v
        read_liberty -lib -ignore_miss_func liberty.lib
        {" ".join(["blackbox", *black_boxes]) if black_boxes else ""}
        hierarchy -check -top {top}
        {_FLATTEN}
        {_MERGE}
        opt_dff -nodffe -nosdff
        opt_clean
        wreduce
        peepopt
        opt_clean
        {"booth" if booth else ""}
        alumacc
        opt_expr -full
        {_MERGE}
        memory
        opt_clean
        techmap -map adder_cells.v
        techmap
        opt_expr -full
        {_MERGE}
        opt_dff -nodffe -nosdff
        opt_clean
        dfflibmap {avoid} -liberty liberty.lib
        opt_expr
        {_MERGE}
        opt_clean
        write_json prepared.json
    """
    mapping = """
        read_json buffered.json
        abc -liberty liberty.lib {avoid} -constr abc.constr -D {picoseconds} -script {script}.abc
        setundef -zero
        {hilomap}
        opt_clean -purge
        check -mapped
        setattr -mod -unset keep_hierarchy *
        flatten
        opt_clean -purge
        write_verilog -noattr -noexpr -nohex -simple-lhs netlist.v
        write_json netlist.json
    """
    return {
        "prepare.ys": prepare,
        **{f"map_{script}.ys": mapping.format(script=script, **values) for script in ABC_SCRIPTS},
        **{
            f"{script}.abc": f"{commands}; {ABC_SIZING}\n".replace("; ", "\n").replace("{D}", f"-D {picoseconds}")
            for script, commands in ABC_SCRIPTS.items()
        },
        "abc.constr": f"set_driving_cell {library.driver.name}\nset_load {library.load}\n",
        "fold.v": _FOLD,
        "adder_cells.v": _adder_map("full", library.full_adder) + _adder_map("half", library.half_adder),
    }


def _generic_script(top: str) -> dict[str, str]:
    script = f"""
        read_verilog design.v
        read_verilog -overwrite adders.v
        hierarchy -check -top {top}
        {_FLATTEN}
        opt_dff -nodffe -nosdff
        opt_clean
        booth
        alumacc
        memory
        techmap
        opt_expr -full
        {_MERGE}
        opt_clean
        abc -g {GENERIC_GATES}
        setundef -zero
        opt_clean -purge
        setattr -mod -unset keep_hierarchy *
        flatten
        opt_clean -purge
        write_verilog -noattr netlist.v
        write_json netlist.json
    """
    return {"run.ys": script, "fold.v": _FOLD}


def _fpga_script(target: Target, top: str) -> dict[str, str]:
    script = f"""
        read_verilog design.v
        hierarchy -check -top {top}
        {_KEEP}
        {target.technology.synth} -top {top}
        setattr -mod -unset keep_hierarchy *
        flatten
        opt_clean -purge
        write_verilog -noattr netlist.v
        write_json netlist.json
    """
    return {"run.ys": script}


def is_flip_flop(cell: str, library: Library | None) -> bool:
    """Whether a kind of cell, of a library or an FPGA, is a flip-flop."""
    if library is not None:
        return cell in library.cells and library.cells[cell].is_flip_flop
    return bool(re.search(r"DFF|TRELLIS_FF|^FD[RSCP]E", cell))


def luts(cells: Mapping[str, int]) -> int:
    """Lookup tables, where an ECP5 carry cell takes two."""
    return sum(
        count * (2 if cell == "CCU2C" else 1)
        for cell, count in cells.items()
        if re.fullmatch(r"SB_LUT4|LUT[1-6]|CCU2C|INV", cell)
    )


def _count(top: str, target: Target, folder: Path, result: Path, black_boxes: Sequence[str]) -> Netlist:
    """What the flat netlist in ``folder``, whose place will be ``result``, has of each cell, part by part."""
    library = target.library
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("", *APART)}
    for name, cell in json.loads((folder / "netlist.json").read_text())["modules"][top]["cells"].items():
        kind = cell["type"].removeprefix("\\")
        if kind != "$scopeinfo" and kind not in black_boxes:  # the former remembers a flattened module
            place = next((place for place in APART if re.search(rf"(^|[\\.]){place}\w*\.", name)), "")
            counts[place][kind] += 1

    def part(name: str) -> Part:
        cells = dict(sorted(counts[name].items()))
        area = None
        if library is not None:
            unknown = [cell for cell in cells if cell not in library.cells]
            if unknown:
                raise SynthesisError(f"Netlist of {top!r} must have library cells only, not {', '.join(unknown)}")
            area = round(sum(library.cells[cell].area * count for cell, count in cells.items()), 6)
        ffs = sum(count for cell, count in cells.items() if is_flip_flop(cell, library))
        return Part(cells=cells, area=area, ffs=ffs)

    body = part("")
    adders = [adder.cell for adder in (library.full_adder, library.half_adder) if adder] if library else []
    adders = adders or ["pactolus_full_adder", "pactolus_half_adder"]
    return Netlist(
        top=top,
        cells=body.cells,
        area=body.area,
        ffs=body.ffs,
        luts=luts(body.cells) if target.technology.kind is Kind.FPGA else None,
        full_adders=body.cells.get(adders[0], 0),
        half_adders=body.cells.get(adders[-1], 0),
        apart={name: part(name) for name in APART},
        folder=str(result),
    )


def synthesize(
    verilog: str,
    top: str,
    target: Target,
    *,
    build: Path,
    clock_ns: float | None = None,
    black_boxes: Sequence[str] = (),
    booth: bool = True,
) -> Netlist:
    """Map the module ``top`` of ``verilog`` onto ``target``.

    Deterministic for one version of pyosys. The result is kept under ``build``, in a folder named by the hash of all
    that it depends on, and taken from there the next time. Takes 1 to 60 s otherwise.

    Parameters
    ----------
    clock_ns : :class:`float` or ``None``
        Clock period that ABC works for; ``None``: the technology's. Without effect where there are no delays.
    black_boxes : sequence of :class:`str`
        Modules below ``top`` that are left out, neither mapped nor counted. Standard cells only.
    booth : :class:`bool`
        Whether the products that are left to Yosys become Booth multipliers. Standard cells only.

    Raises
    ------
    :class:`SynthesisError`
        Yosys failed; the message has the end of its log.
    :class:`ValueError`
        Black boxes were asked for and the target has no standard cells.
    """
    library = target.library
    if black_boxes and library is None:
        raise ValueError(f"Black boxes need a technology of standard cells, not {target.name!r}")
    adders = _bitwise_adders(verilog)
    has_adder_cells = library is not None and library.full_adder is not None and "module full_adders" in adders
    picoseconds = round(
        (clock_ns or target.technology.clock_ns) * 1000 * (SHARE_BESIDE_ADDERS if has_adder_cells else SHARE_ALONE)
    )
    if library is not None:
        files = _cells_script(target, library, top, picoseconds, black_boxes, booth)
    elif target.technology.kind is Kind.FPGA:
        files = _fpga_script(target, top)
    else:
        files = _generic_script(top)
    files = {name: re.sub(r"^\s+", "", text, flags=re.MULTILINE) for name, text in files.items()}
    files |= {"design.v": verilog, "adders.v": adders}

    try:
        yosys = version("pyosys")
    except PackageNotFoundError:
        raise SynthesisError("Yosys is not installed: pip install 'pactolus[synth]' brings it (pyosys)") from None
    key = [FORMAT, LEAF, BRANCH, WIDE_GATE, yosys, target.digest, top, files]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    folder = build.resolve() / digest[:16]
    result = folder / "result.json"
    if result.is_file():
        stored = json.loads(result.read_text())
        apart = {name: Part(**part) for name, part in stored["apart"].items()}
        return Netlist(**stored | {"apart": apart, "folder": str(folder)})

    # Made beside its place and moved there whole, since another process may be at the same. A failure moves too.
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        for name, text in files.items():
            (work / name).write_text(text)
        if target.liberty is not None:
            (work / "liberty.lib").symlink_to(os.path.relpath(liberty_file(target, build), work))
        _map(work, top, library, picoseconds)
        netlist = _count(top, target, work, folder, black_boxes)
        (work / "result.json").write_text(json.dumps(asdict(netlist), indent=1))
    finally:
        for scratch in ("prepared.json", "buffered.json"):
            (work / scratch).unlink(missing_ok=True)
        if not result.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                work.rename(folder)
        shutil.rmtree(work, ignore_errors=True)
    return netlist


def _map(folder: Path, top: str, library: Library | None, picoseconds: int) -> None:
    """Run the scripts in ``folder``; they leave ``netlist.v`` and ``netlist.json`` there."""
    if library is None:
        run_yosys("run.ys", folder, top)
        return
    run_yosys("prepare.ys", folder, top)
    netlist = json.loads((folder / "prepared.json").read_text())
    for name, module in netlist["modules"].items():
        if module["cells"]:
            buffer_trees(netlist, name, library)
    (folder / "buffered.json").write_text(json.dumps(netlist))
    log = run_yosys("map_small.ys", folder, top)
    delays = re.findall(r"^ABC: .*\bDelay = +([\d.]+) ps", log, re.MULTILINE)
    if delays and float(delays[-1]) > picoseconds:
        run_yosys("map_fast.ys", folder, top)


def store(path: Path, text: str) -> None:
    """Write a file of the cache, which other processes may be writing at the same time, in one piece."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as part:
        part.write(text)
    Path(part.name).rename(path)


def liberty_file(target: Target, build: Path) -> Path:
    """The uncompressed Liberty under ``build``, where Yosys, ABC and OpenSTA read it."""
    path = build.resolve() / "liberty" / f"{target.name}-{target.digest[:16]}.lib"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        store(path, target.liberty or "")
    return path


def run_yosys(script: str, folder: Path, top: str) -> str:
    """Run a script of Yosys's in ``folder`` in a process of its own, and return its log."""
    log = folder / f"{script}.log"
    with log.open("w") as output, tempfile.TemporaryDirectory() as scratch:
        status = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("_yosys.py")), script],
            cwd=folder,
            env=os.environ | {"TMPDIR": scratch},  # ABC's files, and a cache of libraries that no version clears
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    text = log.read_text(errors="replace")
    if status:
        tail = "\n".join(text.splitlines()[-12:])
        raise SynthesisError(f"Yosys failed on {top!r} with status {status}; the end of its log ({script}):\n{tail}")
    return text
