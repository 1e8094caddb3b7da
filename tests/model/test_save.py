import jax
import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.errors import CheckpointError, ConfigError
from gemma_scope.model import config as configs
from gemma_scope.model.convert import gemma_to_tensors
from gemma_scope.model.save import FORMATS, save


@pytest.fixture
def known(tiny_lm, monkeypatch):
  """The tiny size as if it were published, so that it can be loaded."""
  sizes = {**configs.SIZES, "tiny": tiny_lm.config}
  monkeypatch.setattr(configs, "SIZES", sizes)
  return tiny_lm


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_saved_loads_again_bit_for_bit(known, tmp_path, name):
  doubled = known.replace(jax.tree.map(lambda leaf: leaf * 2, known.model))
  folder = save(doubled, tmp_path / "edited", format=name)
  back = gs.load(str(folder))
  expected = gemma_to_tensors(doubled.model)
  for key, value in gemma_to_tensors(back.model).items():
    np.testing.assert_array_equal(value, expected[key], err_msg=key)
  text = "Mary and John went to Paris"
  assert back.tokenizer.encode(text) == known.tokenizer.encode(text)


def test_taps_are_not_weights(known, tmp_path):
  tapped = gs.surgery.tap(known.model, [gs.Site("resid_post", 1)])
  folder = save(known.replace(tapped), tmp_path / "tapped")
  assert gs.load(str(folder)).config == known.config


def test_unknown_format(known, tmp_path):
  with pytest.raises(ConfigError, match='instead:  format="huggingface"'):
    save(known, tmp_path / "x", format="gguf")
  assert not (tmp_path / "x").exists()


def test_nothing_is_overwritten(known, tmp_path):
  (tmp_path / "mine.txt").write_text("keep")
  with pytest.raises(CheckpointError, match="already exists"):
    save(known, tmp_path)
