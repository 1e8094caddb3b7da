"""Small random models of the shape of the five sizes, for tests."""

from gemma_scope.model.build import random_tensors
from gemma_scope.model.config import GemmaConfig
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.testing.tokenizer import tiny_tokenizer


def tiny_config(
  *, num_layers: int = 8, vocab_size: int = 512, window: int = 8
) -> GemmaConfig:
  """A two-heads-per-key model whose depth is no multiple of the period."""
  return GemmaConfig(
    size="tiny",
    num_layers=num_layers,
    d_model=32,
    d_ff=48,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    query_scalar=16.0,
    window=window,
    max_context=256,
    vocab_size=vocab_size,
  )


def tiny_gemma(
  config: GemmaConfig | None = None, *, seed: int = 0, scan: bool = True
) -> Gemma:
  """A random float32 model of `config`."""
  config = config or tiny_config()
  return tensors_to_gemma(random_tensors(config, seed), config, scan=scan)


def tiny_lm(
  config: GemmaConfig | None = None, *, seed: int = 0
) -> LanguageModel:
  """A random model of `config` with the tiny tokenizer."""
  config = config or tiny_config()
  model = tiny_gemma(config, seed=seed)
  return LanguageModel(model, tiny_tokenizer(), config, "tiny", "random")
