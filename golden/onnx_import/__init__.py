"""Import of ONNX files: networks in integers, QONNX and QCDQ, as the integer network that computes the very same codes.

==================  ==========================================================================================
module              what is in it
==================  ==========================================================================================
``graph``           reads a file that may be hostile: nodes, constants, sizes
``levels``          what a quantizer's integers are
``constants``       operators on constants alone, quantized weights among them
``values``          the tensors of a file, as its operators see them
``builder``         the network under construction: values, and operations where codes are read
``shapes``          operators that move or rename, and change no number
``arithmetic``      operators that change an expression
``layers``          convolutions, linear layers
``pools``           sums and maxima over windows, whole maps, padding
``windows``         where windows lie, and where the channels are
``quantizers``      Quant, BipolarQuant, MultiThreshold, QuantizeLinear, DequantizeLinear
``importer``        walks the nodes from the input to the output
``agreement``       an import beside the file's own executor
``result``          what comes out: the network, and what its codes mean in the file
==================  ==========================================================================================
"""

from golden.onnx_import.graph import UnsupportedModelError
from golden.onnx_import.importer import convert, import_file, load
from golden.onnx_import.result import Import

__all__ = ["Import", "UnsupportedModelError", "convert", "import_file", "load"]
