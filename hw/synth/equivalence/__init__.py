"""Proofs that an array and its mapped netlist are the plain sum of products."""
