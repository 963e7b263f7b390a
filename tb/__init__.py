"""Benches that compare the RTL with golden on Verilator and on Icarus Verilog, and the runner that starts them."""
