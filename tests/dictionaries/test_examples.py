"""examples.safetensors: the strongest places, padding left out."""

import numpy as np
import pytest
import safetensors.numpy

from gemma_scope.dictionaries import examples
from gemma_scope.errors import CheckpointError, ConfigError
from gemma_scope.testing import dictionary_files as files


@pytest.fixture
def stored(tmp_path):
  return tmp_path, files.write_examples(tmp_path, 6)


def test_top(stored):
  folder, arrays = stored
  found = examples.read_examples(folder)
  assert found.num_latents == 6
  for latent in range(6):
    top = found.top(latent, context=8)
    assert len(top) == 5  # two of seven are padding
    for rank, example in enumerate(top):
      row = arrays["seq_ids"][latent, rank]
      place = arrays["positions"][latent, rank]
      assert example.activation == arrays["activations"][latent, rank]
      assert example.tokens[example.index] == arrays["tokens"][row, place]
      assert len(example.tokens) <= 17
  assert len(found.top(0, 2)) == 2


def test_tables(stored):
  folder, arrays = stored
  found = examples.read_examples(folder / "examples.safetensors")
  assert found.frequency(3) == arrays["feature_frequencies"][3]
  np.testing.assert_array_equal(
    found.logit_effects(2), arrays["logit_effects"][2]
  )
  for end, effects in (("top", found.favoured), ("bottom", found.disfavoured)):
    np.testing.assert_array_equal(effects(4).tokens, arrays[f"{end}_tokens"][4])
    np.testing.assert_array_equal(effects(4).logits, arrays[f"{end}_logits"][4])


def test_no_such_latent(stored):
  with pytest.raises(ConfigError, match="latent 6"):
    examples.read_examples(stored[0]).top(6)


def test_other_files(stored):
  folder, arrays = stored
  path = folder / "examples.safetensors"
  few = {k: v for k, v in arrays.items() if k != "positions"}
  safetensors.numpy.save_file(few, path)
  with pytest.raises(CheckpointError, match="lacks positions"):
    examples.read_examples(path)
  few = {k: v for k, v in arrays.items() if k != "top_tokens"}
  safetensors.numpy.save_file(few, path)
  with pytest.raises(CheckpointError, match="no top_tokens"):
    examples.read_examples(path).favoured(0)
