"""A row of a table in words."""

import numpy as np
import pytest

from gemma_scope.analysis.latent_info import latent_info
from gemma_scope.dictionaries.examples import read_examples
from gemma_scope.errors import ConfigError
from gemma_scope.testing import dictionary_files
from gemma_scope.testing.latents import random_table
from gemma_scope.testing.tokenizer import tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
  return tiny_tokenizer()


def test_a_row_of_a_table(tokenizer):
  table = random_table(8)
  found = latent_info(
    tokenizer, table, "mine", 3, description="words", examples=2
  )
  assert (found.dictionary, found.index) == ("mine", 3)
  assert found.description == "words"
  assert found.frequency == pytest.approx(float(table.frequencies[3]))
  assert found.maximum == pytest.approx(float(table.maxima[3]))
  ids = table.logit_tokens[3]
  texts = [t for t, _ in found.favoured]
  assert texts == [tokenizer.token_text(int(i)) for i in ids[0]]
  values = [v for _, v in found.disfavoured]
  np.testing.assert_allclose(values, table.logit_values[3, 1])
  assert len(found.examples) == 2
  first, example = found.examples[0], table.top(3)[0]
  assert first.pieces == tuple(tokenizer.pieces(example.tokens))
  assert first.peak == example.index
  np.testing.assert_allclose(first.activations, example.activations)


def test_a_dead_latent(tokenizer):
  found = latent_info(tokenizer, random_table(8), "mine", 1)
  assert (found.examples, found.maximum, found.frequency) == ((), 0.0, 0.0)


def test_published_examples_know_the_peak_alone(tokenizer, tmp_path):
  dictionary_files.write_examples(tmp_path, 6)
  found = latent_info(tokenizer, read_examples(tmp_path), "published", 2)
  for example in found.examples:
    assert np.count_nonzero(example.activations) == 1
    assert example.activations[example.peak] > 0
  assert found.maximum == found.examples[0].activations[found.examples[0].peak]


def test_no_such_latent(tokenizer):
  with pytest.raises(ConfigError, match="latent 8"):
    latent_info(tokenizer, random_table(8), "mine", 8)
