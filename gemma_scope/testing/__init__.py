"""Small models, tokenizers and checkpoints for tests."""

from gemma_scope.testing.tiny import tiny_lm as tiny_lm
