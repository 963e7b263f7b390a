"""The truth: the integer network, its arithmetic, its executor, its file and its vectors.

Everything else in the repository is compared with this package. It needs numpy and safetensors only and knows
neither PyTorch nor hardware.
"""
