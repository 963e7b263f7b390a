"""What a Liberty says of its cells' power: internal energy by slew and load, leakage by state, voltage and units."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from hw.synth.liberty import LibertyError

__all__ = ["Arc", "CellPower", "PowerLibrary", "Table", "read_power"]


@dataclass(frozen=True, eq=False)
class Table:
    """A quantity by input slew and output load: ``values[slew, load]``.

    Slews are in the library's unit of time, loads in femtofarads. Beyond its ends the table goes on flat.
    """

    slews: np.ndarray
    loads: np.ndarray
    values: np.ndarray

    def at(self, slew: float, loads: np.ndarray | float) -> np.ndarray:
        """The values at one slew and some loads, by bilinear interpolation."""
        place = np.interp(slew, self.slews, np.arange(len(self.slews)))
        low = min(int(place), len(self.slews) - 1)
        high = min(low + 1, len(self.slews) - 1)
        line = self.values[low] + (place - low) * (self.values[high] - self.values[low])
        return np.interp(loads, self.loads, line)


@dataclass(frozen=True, kw_only=True, eq=False)
class Arc:
    """One ``internal_power`` group: femtojoules per edge.

    Members
    -------
    pin : :class:`str`
        Whose edges are counted.
    related : :class:`str` or ``None``
        The input that made an output's edge; ``None`` for the edges of inputs.
    when : :class:`str` or ``None``
        The condition on the other pins.
    rail : :class:`str`
        The supply pin; energies of different rails add up.
    rise, fall : :class:`Table` or ``None``
        By direction of the pin's edge.
    """

    pin: str
    related: str | None
    when: str | None
    rail: str
    rise: Table | None
    fall: Table | None


@dataclass(frozen=True, kw_only=True, eq=False)
class CellPower:
    """Power of one cell.

    Members
    -------
    arcs : tuple of :class:`Arc`
    leakage_nw : :class:`float`
        Where no state is known.
    states : tuple of (condition, rail, nanowatts)
        By state; rails add up.
    transitions : mapping of :class:`str` to tuple of :class:`Table`
        Output slews by output pin, in the library's unit of time.
    """

    arcs: tuple[Arc, ...]
    leakage_nw: float
    states: tuple[tuple[str, str, float], ...] = ()
    transitions: Mapping[str, tuple[Table, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class PowerLibrary:
    """Power of a library's cells, supplied with ``voltage`` volts.

    Members
    -------
    time_ns : :class:`float`
        The unit of its slews, in nanoseconds.
    """

    name: str
    voltage: float
    time_ns: float
    cells: Mapping[str, CellPower]

    def slew(self, cell: str, pin: str, load: float) -> float:
        """The slowest output slew of a cell that is driven by another of its kind, in the library's unit of time.

        Both drive ``load`` femtofarads.
        """
        tables = self.cells[cell].transitions.get(pin, ())
        if not tables:
            raise LibertyError(f"Cell {cell!r} of Liberty library {self.name!r} must have transition times at {pin!r}")
        slew = float(tables[0].slews[0])
        for _ in range(20):
            slew = max(float(table.at(slew, load)) for table in tables)
        return slew


@dataclass
class _Group:
    kind: str
    arguments: list[str]
    attributes: dict[str, str]
    groups: list[_Group]

    def of(self, *kinds: str) -> Iterator[_Group]:
        return (group for group in self.groups if group.kind in kinds)


_TOKEN = re.compile(
    r"""/\*.*?\*/
    |(?P<name>[A-Za-z_]\w*)\s*(?:\((?P<args>[^(){};]*)\)\s*(?P<open>\{)?|:\s*(?P<value>"[^"]*"|[^;\n}]*))
    |"[^"]*"
    |(?P<close>\})""",
    re.VERBOSE | re.DOTALL,
)
_BRACE = re.compile(r'/\*.*?\*/|"[^"]*"|[{}]', re.DOTALL)


def _parse(text: str) -> _Group:
    root = _Group("", [], {}, [])
    stack = [root]
    for match in _TOKEN.finditer(text):
        if match["open"]:
            group = _Group(match["name"], [word.strip(' \t\n"') for word in match["args"].split(",")], {}, [])
            stack[-1].groups.append(group)
            stack.append(group)
        elif match["name"]:
            value = match["args"] if match["value"] is None else match["value"]
            stack[-1].attributes[match["name"]] = value.strip(' \t\n"')
        elif match["close"] and len(stack) > 1:
            stack.pop()
    return root


def _body(text: str, start: int) -> str:
    """From ``start`` to the brace that closes the first one after it."""
    depth = 0
    for match in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if match[0] == "}" and depth == 0:
            return text[start : match.end()]
    raise LibertyError("Liberty text must close every group")


def _numbers(text: str) -> np.ndarray:
    return np.array([float(word) for word in re.findall(r"[-+.\deE]+", text)])


class _Reader:
    """The units and table templates of a Liberty text, and its cells one by one."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.name = self._attribute(r"library\s*\(\s*\"?([\w.-]+)") or ""
        header = text[: next((match.start() for match in re.finditer(r"\bcell\s*\(", text)), len(text))]
        self.header = header
        unit = re.search(r"capacitive_load_unit\s*\(\s*\"?([\d.eE+-]+)\"?\s*,\s*\"?(\w+)", header)
        self.femtofarads = (float(unit[1]) * {"ff": 1.0, "pf": 1000.0}[unit[2].lower()]) if unit else 1000.0
        voltage = self._scaled("voltage_unit", "V", 1.0)
        self.voltage = float(self._attribute(r"nom_voltage\s*:\s*\"?([\d.eE+-]+)") or 0) * voltage
        if not self.voltage:
            raise LibertyError(f"Liberty library {self.name!r} must have a nom_voltage")
        self.femtojoules = self.femtofarads * voltage**2
        self.nanowatts = self._scaled("leakage_power_unit", "W", 1e-9) * 1e9
        self.time_ns = self._scaled("time_unit", "s", 1e-9) * 1e9
        self.templates = {
            group.arguments[0]: group
            for match in re.finditer(r"\b(?:power_lut|lu_table)_template\s*\(", header)
            for group in _parse(_body(header, match.start())).groups
        }

    def _attribute(self, pattern: str) -> str | None:
        found = re.search(pattern, self.text)
        return found[1] if found else None

    def _scaled(self, name: str, unit: str, otherwise: float) -> float:
        found = re.search(rf"{name}\s*:\s*\"?\s*([\d.]*)\s*([munpf]?){unit}", self.header)
        if not found:
            return otherwise
        return float(found[1] or 1) * {"m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15, "": 1.0}[found[2]]

    def table(self, group: _Group, scale: float) -> Table:
        """A table with slews first, whatever its template's order is."""
        values = _numbers(group.attributes["values"]) * scale
        template = self.templates.get(group.arguments[0])
        axes: dict[str, np.ndarray] = {}
        order = []
        for number in (1, 2):
            variable = template.attributes.get(f"variable_{number}") if template else None
            if variable is not None and template is not None:
                index = group.attributes.get(f"index_{number}", template.attributes.get(f"index_{number}", ""))
                kind = "load" if "capacitance" in variable else "slew"
                axes[kind] = _numbers(index) * (self.femtofarads if kind == "load" else 1.0)
                order.append(kind)
        slews, loads = axes.get("slew", np.zeros(1)), axes.get("load", np.zeros(1))
        if len(values) != len(slews) * len(loads):
            raise LibertyError(
                f"Table {group.arguments[0]!r} must have {len(slews)} x {len(loads)} values, not {len(values)}"
            )
        if order[:1] == ["load"]:
            return Table(slews, loads, values.reshape(len(loads), len(slews)).T)
        return Table(slews, loads, values.reshape(len(slews), len(loads)))

    def cell(self, name: str) -> CellPower:
        """One cell's power."""
        match = re.search(rf"\bcell\s*\(\s*\"?{re.escape(name)}\"?\s*\)\s*\{{", self.text)
        if match is None:
            raise LibertyError(f"Liberty library {self.name!r} must have a cell {name!r}")
        cell = next(iter(_parse(_body(self.text, match.start())).groups))
        arcs = [
            self._arc(pin_name, group)
            for pin in cell.of("pin")
            for pin_name in pin.arguments
            for group in pin.of("internal_power")
        ]
        states = []
        unconditional: dict[str, float] = {}
        for group in cell.of("leakage_power"):
            value = float(group.attributes.get("value", 0)) * self.nanowatts
            rail = group.attributes.get("related_pg_pin", "")
            if "when" in group.attributes:
                states.append((group.attributes["when"], rail, value))
            else:
                unconditional[rail] = value
        leakage = cell.attributes.get("cell_leakage_power")
        transitions = {
            pin_name: tuple(
                self.table(table, 1.0)
                for timing in pin.of("timing")
                for table in timing.of("rise_transition", "fall_transition")
                if table.arguments[0] != "scalar"
            )
            for pin in cell.of("pin")
            for pin_name in pin.arguments
            if pin.attributes.get("direction") == "output"
        }
        return CellPower(
            arcs=tuple(arcs),
            leakage_nw=sum(unconditional.values()) if leakage is None else float(leakage) * self.nanowatts,
            states=tuple(states),
            transitions=transitions,
        )

    def _arc(self, pin: str, group: _Group) -> Arc:
        tables = {}
        for edge in ("rise", "fall"):
            # "power" stands for both edges.
            found = next(group.of(f"{edge}_power"), None) or next(group.of("power"), None)
            tables[edge] = None if found is None else self.table(found, self.femtojoules)
        related = group.attributes.get("related_pin")
        return Arc(
            pin=pin,
            related=related,
            when=group.attributes.get("when"),
            rail=group.attributes.get("related_pg_pin", ""),
            rise=tables["rise"],
            fall=tables["fall"],
        )


def read_power(text: str, names: Iterable[str], known: PowerLibrary | None = None) -> PowerLibrary:
    """The power of the cells ``names`` of a Liberty text, and of those already ``known`` from the same text.

    A cell takes a tenth of a second.

    Raises
    ------
    :class:`~hw.synth.liberty.LibertyError`
        The library has no voltage or no such cell, a table has not the values that its template says, or no cell at
        all has internal power.
    """
    reader = _Reader(text)
    cells = dict(known.cells) if known else {}
    cells |= {name: reader.cell(name) for name in names if name not in cells}
    if cells and not any(cell.arcs for cell in cells.values()):
        raise LibertyError(f"Liberty library {reader.name!r} must have internal_power groups, for an energy")
    return PowerLibrary(name=reader.name, voltage=reader.voltage, time_ns=reader.time_ns, cells=cells)
