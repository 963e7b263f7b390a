"""Area and delay per bit width: Yosys, ABC and OpenSTA on the generated Verilog, for one technology at a time."""
