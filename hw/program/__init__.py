"""From an integer network to a program: the builder, its listing and files, and the cycle model.

Nothing of the RTL imports this; what both know of the stream is in :mod:`hw.program_format`.
"""

from hw.program.builder import PlannedLayer, Program, build

__all__ = ["PlannedLayer", "Program", "build"]
