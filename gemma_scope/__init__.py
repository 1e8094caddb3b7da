"""gemma_scope: a full-stack interpretability suite for Gemma 3, in JAX."""
