"""Integer networks as ONNX models, each form with an executor of somebody else's that confirms it.

:func:`integer_model` writes ONNX's own integer operators, which ONNX Runtime executes to the very codes of golden.
"""

from golden.onnx_export.graph import metadata
from golden.onnx_export.integer import integer_model
from golden.onnx_export.run import Comparison, compare, run

__all__ = ["Comparison", "compare", "integer_model", "metadata", "run"]
