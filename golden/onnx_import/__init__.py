"""Import of ONNX files: networks in integers, QONNX and QCDQ, as the integer network that computes the very same codes.

==================  ==========================================================================================
module              what is in it
==================  ==========================================================================================
``graph``           reads a file that may be hostile: nodes, constants, sizes
``constants``       operators on constants alone, quantized weights among them
``importer``        walks the nodes, and makes operations where codes are read
``shapes``          operators that move or rename, and change no number
``arithmetic``      operators that change an expression
``layers``          convolutions, linear layers, pools
``quantizers``      Quant, BipolarQuant, MultiThreshold, QuantizeLinear, DequantizeLinear
``result``          what comes out: the network, and what its codes mean in the file
==================  ==========================================================================================
"""

from golden.onnx_import.graph import UnsupportedModelError
from golden.onnx_import.importer import convert, import_file, load
from golden.onnx_import.result import Import

__all__ = ["Import", "UnsupportedModelError", "convert", "import_file", "load"]
