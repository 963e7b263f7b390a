"""The pages that are written from the code are those that are committed."""

from pathlib import Path

import pytest

from hw.program_format import COMMANDS, HEADER, Error
from hw.reference import pages, write
from hw.registers import REGISTERS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", list(pages()))
def test_committed(name):
    assert (DOCS / name).read_text() == pages()[name], "run `pactolus docs`"


def test_everything_is_there():
    text = pages()["registers.md"]
    assert all(f"| {item.name}" in text for item in REGISTERS)
    assert all(f"| {bits.name} |" in text for item in REGISTERS for bits in item.bits)
    for name in ("registers.md", "stream-format.md"):
        assert all(f"| {error.value} | {error.name} |" in pages()[name] for error in Error)
    text = pages()["stream-format.md"]
    for record in (HEADER, *COMMANDS.values()):
        assert all(f"| `{field.name}` |" in text for field in record if field.name != "reserved")


def test_write(tmp_path):
    assert [path.name for path in write(tmp_path)] == list(pages())
    assert write(tmp_path) == []
    (tmp_path / "registers.md").write_text("")
    assert [path.name for path in write(tmp_path)] == ["registers.md"]
