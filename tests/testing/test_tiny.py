"""The tiny model is small, grouped, random by seed, and can be asked."""

import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.model.convert import gemma_to_tensors
from gemma_scope.testing import tiny
from gemma_scope.testing.tokenizer import TINY_VOCAB_SIZE


def test_its_shape_hides_no_mistake():
  config = tiny.tiny_config()
  assert config.num_parameters < 200_000
  assert config.num_layers % config.period
  assert 1 < config.num_kv_heads < config.num_heads
  assert config.num_heads * config.head_dim != config.d_model
  assert config.rope_factor != 1
  assert config.vocab_size == TINY_VOCAB_SIZE


def test_options_reach_the_config():
  config = tiny.tiny_config(num_layers=3, vocab_size=128, window=5)
  assert (config.num_layers, config.vocab_size, config.window) == (3, 128, 5)
  model = tiny.tiny_gemma(config)
  assert model.config is config
  assert model.stack.num_layers == 3
  assert model.table.named_shape["vocabulary"] == 128


@pytest.mark.parametrize("scan", [True, False])
def test_a_seed_is_one_model(scan):
  one, same, other = (
    gemma_to_tensors(tiny.tiny_gemma(seed=seed, scan=scan))
    for seed in (1, 1, 2)
  )
  for name, value in one.items():
    np.testing.assert_array_equal(value, same[name])
    assert not np.array_equal(value, other[name])


def test_it_has_a_tokenizer_and_no_catalogued_name():
  lm = testing.tiny_lm(seed=3)
  assert lm.tokenizer.vocab_size == lm.config.vocab_size
  assert not lm.is_chat
  assert (lm.name, lm.source) == ("tiny", "random")
