"""FuseSoC's generator: the Verilog of a preset's accelerator, as a core. FuseSoC calls it; see ``generator.core``."""

from __future__ import annotations

import sys
from pathlib import Path

from fusesoc.capi2.generator import Generator

from hw.accelerator import Accelerator
from hw.config import preset
from hw.verilog import generate, write_if_changed


def main() -> None:
    """Write the Verilog and the core file into the working directory."""
    generator = Generator()
    try:
        config = preset((generator.config or {}).get("config", "small"))
    except ValueError as error:
        sys.exit(f"pactolus: {error}")
    name = f"pactolus_{config.name}"
    file = Path(f"{name}.v")
    write_if_changed(file, generate(Accelerator(config), name=name))
    generator.add_files([str(file)], file_type="verilogSource")
    generator.write()


if __name__ == "__main__":
    main()
