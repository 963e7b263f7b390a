"""The delay of a mapped netlist, by OpenSTA."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from hw.synth.flow import Netlist, liberty_file, store
from hw.synth.technology import Target

__all__ = ["Timing", "TimingError", "analyze", "unavailable"]

COMMAND = "sta"
TIMEOUT_S = 300


class TimingError(RuntimeError):
    """OpenSTA gave no delay; the message is one sentence, then the last lines of its output."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The longest path of a netlist.

    Members
    -------
    delay_ns : :class:`float`
        The shortest clock period: clock-to-output, the path and the setup time. Wires are ideal, inputs arrive with
        the clock edge out of the library's driver, outputs carry the load that ABC assumed.
    start, end : :class:`str`
        Where the path begins and ends.
    """

    delay_ns: float
    start: str
    end: str


def unavailable(target: Target) -> str | None:
    """Why there will be no delays, in one sentence; ``None`` where there will."""
    if target.library is None:
        return f"No delays: there is no Liberty for {target.technology.title}."
    if shutil.which(COMMAND) is None:
        return f"No delays: OpenSTA ({COMMAND}) is not installed (Debian: apt install opensta)."
    return None


def analyze(netlist: Netlist, target: Target, *, build: Path, clock: str = "clk") -> Timing:
    """Time ``netlist`` with ``target``'s Liberty, or return what was found before, kept beside the netlist.

    Takes seconds, most of them to read the Liberty.

    Raises
    ------
    :class:`TimingError`
        OpenSTA failed, or found no path.
    """
    assert target.library is not None
    library = target.library
    output = library.driver.outputs[0].name
    script = f"""\
read_liberty {{{liberty_file(target, build)}}}
read_verilog {{{netlist.verilog}}}
link_design {{{netlist.top}}}
set_cmd_units -time ns -capacitance fF
create_clock -name clock -period 1000 [get_ports {clock}]
set inputs {{}}
foreach port [all_inputs] {{
  if {{[get_property $port full_name] != "{clock}"}} {{ lappend inputs $port }}
}}
set_input_delay 0 -clock clock $inputs
set_driving_cell -lib_cell {library.driver.name} -pin {output} $inputs
set_output_delay 0 -clock clock [all_outputs]
set_load {library.load} [all_outputs]
report_checks -path_delay max -digits 6
exit
"""
    digest = hashlib.sha256(script.encode() + netlist.verilog.read_bytes()).hexdigest()
    stored = Path(netlist.folder) / f"timing-{digest[:16]}.json"
    if stored.is_file():
        return Timing(**json.loads(stored.read_text()))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "timing.tcl").write_text(script)
        try:
            result = subprocess.run(
                [COMMAND, "-no_splash", "-exit", "timing.tcl"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TimingError(f"OpenSTA must end within {TIMEOUT_S} s on {netlist.top!r}, and did not") from None
    report = result.stdout + result.stderr
    slack = re.search(r"^\s*(-?[\d.]+)\s+slack \(", report, re.MULTILINE)
    start = re.search(r"^Startpoint: (\S+)", report, re.MULTILINE)
    end = re.search(r"^Endpoint: (\S+)", report, re.MULTILINE)
    # This OpenSTA goes on after an error, without what it could not read.
    if result.returncode or not (slack and start and end) or re.search(r"^Error", report, re.MULTILINE):
        tail = "\n".join(report.splitlines()[-8:])
        raise TimingError(f"OpenSTA failed on {netlist.top!r}; the end of its output:\n{tail}")
    (Path(netlist.folder) / "timing.log").write_text(report)
    timing = Timing(delay_ns=round(1000 - float(slack[1]), 3), start=start[1], end=end[1])
    store(stored, json.dumps(asdict(timing)))
    return timing
