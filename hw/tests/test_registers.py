"""The register map itself, and its C header."""

import re
import subprocess

import pytest

from hw.config import PRESETS
from hw.program_format import Error
from hw.registers import ADDRESS_BITS, REGISTERS, c_header, identity, register
from hw.tests.tools import tool


def test_nothing_overlaps():
    taken = set()
    for item in REGISTERS:
        addresses = {item.offset + 4 * n for n in range(item.count)}
        assert not taken & addresses, item.name
        assert max(addresses) < 1 << ADDRESS_BITS and item.offset % 4 == 0
        taken |= addresses
        bits = 0
        for field in item.bits:
            assert not bits & field.mask and field.mask < 1 << 32, (item.name, field.name)
            bits |= field.mask
            # Strobes are looked up by a field's lowest bit.
            assert field.access.name == "RO" or field.low // 8 == (field.low + field.width - 1) // 8
    assert len({item.name for item in REGISTERS}) == len(REGISTERS)


def test_look_up():
    assert register("CONTROL")["done_interrupt"].mask == 0x100
    with pytest.raises(KeyError, match="Register must be one of the map's, not 'CTRL'"):
        register("CTRL")
    with pytest.raises(KeyError, match="Register CONTROL must have a field 'go', but has none"):
        register("CONTROL")["go"]


@pytest.mark.parametrize("config", list(PRESETS.values()), ids=lambda config: config.name)
def test_identity_fits(config):
    assert all(0 <= value < 1 << 32 for value in identity(config).values())
    assert {register(name).offset for name in identity(config)} == {*range(0, 0x030, 4)}


def test_error_codes_fit():
    assert max(Error) <= register("ERROR")["code"].mask


def test_c_header_compiles(tmp_path):
    """Without a warning, and with the numbers of the table."""
    gcc = tool("gcc")
    header = c_header()
    (tmp_path / "pactolus_registers.h").write_text(header)
    names = re.findall(r"(?m)^#define (\w+) \S+$", header)
    assert len(names) == len(set(names))
    lines = "\n".join(f'    printf("{name} %u\\n", {name});' for name in names)
    (tmp_path / "print.c").write_text(
        f'#include <stdio.h>\n#include "pactolus_registers.h"\n#include "pactolus_registers.h"\n'
        f"int main(void) {{\n{lines}\n    return 0;\n}}\n"
    )
    command = [gcc, "-std=c90", "-Wall", "-Wextra", "-pedantic", "-Werror", "-o", "print", "print.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    run = subprocess.run([str(tmp_path / "print")], capture_output=True, text=True, check=True)
    values = {name: int(value) for name, value in (line.split() for line in run.stdout.splitlines())}
    for item in REGISTERS:
        assert values.pop(f"PACTOLUS_{item.name}_OFFSET") == item.offset
        if item.count > 1:
            assert values.pop(f"PACTOLUS_{item.name}_COUNT") == item.count
        for bits in item.bits:
            field = f"PACTOLUS_{item.name}_{bits.name.upper()}"
            assert values.pop(f"{field}_MASK") == bits.mask
            assert values.pop(f"{field}_SHIFT") == bits.low
    for error in Error:
        assert values.pop(f"PACTOLUS_CODE_{error.name}") == error.value
    assert values.pop("PACTOLUS_ID_VALUE").to_bytes(4, "little") == b"PACT"
    assert values.keys() == {"PACTOLUS_FORMAT_VERSION", "PACTOLUS_MAP_VERSION"}
