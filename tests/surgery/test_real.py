"""Edits of the real 270M model whose effect is known."""

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import surgery
from gemma_scope.activations.likelihood import nll_change
from gemma_scope.activations.statistics import difference_of_means
from gemma_scope.sites import Site

pytestmark = pytest.mark.real

CLEAN = "When Mary and John went to the store, John gave a drink to"
OTHER = "When Mary and John went to the store, Mary gave a drink to"

PRAISE = [
  "The film was wonderful, and I loved every minute of it.",
  "What a beautiful day; everything went better than we had hoped.",
  "The food was delicious and the staff were kind and helpful.",
  "She is a brilliant teacher, and her students adore her.",
]
COMPLAINT = [
  "The film was terrible, and I hated every minute of it.",
  "What an awful day; everything went worse than we had feared.",
  "The food was disgusting and the staff were rude and lazy.",
  "He is a dreadful teacher, and his students despise him.",
]
MORE_PRAISE = [
  "I really enjoyed this book; it is lovely and full of joy.",
  "The hotel was excellent, clean and comfortable. Great value!",
  "Our guide was fantastic, and the views were amazing.",
  "This is the best phone I have ever had. I am very happy with it.",
  "A charming, funny and touching play, superbly acted.",
  "The children were delighted with their presents.",
]


def test_the_stream_at_the_second_subject_decides_the_name(real_lm):
  """Patched there, early, the answer is the other sentence's."""
  ids = [real_lm.tokenizer.encode(text) for text in (CLEAN, OTHER)]
  (position,) = np.flatnonzero(np.asarray(ids[0]) != np.asarray(ids[1]))
  mary, john = (
    real_lm.tokenizer.encode(name, bos=False)[0] for name in (" Mary", " John")
  )

  def margin(lm):
    acts = gs.capture(lm, CLEAN, ["logits"], logits_at=-1)
    logits = np.asarray(acts["logits"].data_array).ravel()
    return float(logits[mary] - logits[john])

  site = Site("resid_post", 4)
  other = gs.capture(real_lm, OTHER, [site])

  def patched(at):
    edit = surgery.patch(site, other, positions=at)
    return margin(real_lm.replace(surgery.intervene(real_lm.model, edit)))

  assert margin(real_lm) == pytest.approx(2.9, abs=0.2)
  assert patched(int(position)) < -1
  assert patched(int(position) - 1) == pytest.approx(margin(real_lm), abs=1e-2)


def test_a_direction_makes_its_texts_likelier(real_lm):
  site = Site("resid_post", 9)
  direction = difference_of_means(real_lm, PRAISE, COMPLAINT, site)
  change = {
    scale: nll_change(
      real_lm,
      surgery.intervene(
        real_lm.model,
        surgery.steer(
          site, direction, scale=scale, positions=surgery.all_but_bos()
        ),
      ),
      MORE_PRAISE,
    )
    for scale in (1.0, -1.0)
  }
  assert change[1.0].high < 0
  assert change[-1.0].low > 0
