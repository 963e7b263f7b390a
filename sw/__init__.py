"""Training side: fake quantizers, layers, models, training and the export to the integer network."""
