"""Documents to packed batches of tokens."""
