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

FRENCH = [
  "Le chat dort sur le lit.",
  "Nous avons mangé du pain hier.",
  "Elle travaille dans un hôpital.",
  "Il fait froid ce matin.",
  "Mon frère habite à la campagne.",
  "Les enfants jouent dans le jardin.",
]
ENGLISH = [
  "The cat sleeps on the bed.",
  "We ate bread yesterday.",
  "She works in a hospital.",
  "It is cold this morning.",
  "My brother lives in the country.",
  "The children play in the garden.",
]
PROMPT = "My favourite food is"
MORE_FRENCH = [
  " le fromage de chèvre.",
  " la soupe que prépare ma mère.",
  " une salade avec des tomates.",
  " le poulet rôti du dimanche.",
]
MORE_ENGLISH = [
  " the cheese of my village.",
  " the soup that my mother makes.",
  " a salad with tomatoes.",
  " roast chicken on Sundays.",
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

  assert margin(real_lm) == pytest.approx(5.2, abs=0.1)
  assert patched(int(position)) == pytest.approx(-3.7, abs=0.1)
  assert patched(int(position) - 1) == pytest.approx(margin(real_lm), abs=1e-2)


def test_a_direction_steers_towards_its_texts(real_lm):
  """The difference of means of French and English makes it write French."""
  site = Site("resid_post", 12)
  direction = difference_of_means(real_lm, FRENCH, ENGLISH, site)
  edit = surgery.steer(site, direction)
  model = surgery.intervene(real_lm.model, edit)
  toward, away = (
    nll_change(real_lm, model, texts, after=PROMPT)
    for texts in (MORE_FRENCH, MORE_ENGLISH)
  )
  assert toward.high < 0 < away.low
  found = gs.generate(real_lm, PROMPT, max_new_tokens=12, steer=[edit])
  assert found.unsteered.texts[0].startswith(" the ")
  assert found.texts != found.unsteered.texts
