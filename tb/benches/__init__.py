"""The cocotb side: coroutines that run inside the simulator. :mod:`tb.runner` starts them."""
