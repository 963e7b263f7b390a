"""High-precision shortcuts from the module to the program: a quantizer of a quantized tensor is a layer like any."""

from __future__ import annotations

import torch
from torch import nn

from hw.config import preset
from hw.program import build
from sw.export import export
from sw.layers import InputQuantizer, PactActivation, QuantConv2d, ResidualAdd
from sw.quantizers.sawb import Sawb


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.input = InputQuantizer(scale=1 / 255)
        self.stem, self.wide = QuantConv2d(1, 4, 3, quantizer=Sawb(4)), pact(8)
        self.narrow, self.conv = pact(2), QuantConv2d(4, 4, 3, padding=1, quantizer=Sawb(2))
        self.add, self.act = ResidualAdd(), pact(8)

    def forward(self, x):
        x8 = self.wide(self.stem(self.input(x)))
        return self.act(self.add(self.conv(self.narrow(x8)), x8))


def pact(bits: int) -> PactActivation:
    return PactActivation(bits, alpha=1)


def test_the_program_builder_takes_a_requantized_residual_stream():
    torch.manual_seed(0)
    network = export(Block(), torch.rand(2, 1, 6, 6)).network
    program = build(network, preset("tiny"))
    assert [layer.name for layer in program.layers] == ["stem", "narrow", "conv"]
    assert [layer.tensor for layer in program.layers] == ["wide", "narrow", "act"]
