"""RTL generators, one component a file, written in Amaranth; see the docstring of each component for its contract."""
