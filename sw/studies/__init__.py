"""Studies: each trains or measures, and writes its table and its plot."""
