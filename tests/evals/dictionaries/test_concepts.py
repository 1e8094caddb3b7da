"""Labelled texts: every class is there, and no group is on both sides."""

import types

import numpy as np
import pytest

from gemma_scope.errors import ConfigError, TextError
from gemma_scope.evals.dictionaries import concepts as module
from gemma_scope.evals.dictionaries.concepts import (
  SETS,
  Labelled,
  concepts,
  first_letter,
  sentiment_by_topic,
)

WORDS = [f"{a}{b}og" for b in "abcdefghijkl" for a in "xyz"]
PIECES = ["<pad>", "<eos>", "<bos>", *[f" {w}" for w in WORDS], " Xag", "xag"]


@pytest.fixture(scope="module")
def words():
  """A model whose vocabulary is a list of words."""
  tokenizer = types.SimpleNamespace(
    vocab_size=len(PIECES), token_text=PIECES.__getitem__, bos_id=2
  )
  return types.SimpleNamespace(tokenizer=tokenizer)


@pytest.fixture(scope="module")
def sets(tiny_lm, words):
  made = {n: make(tiny_lm) for n, make in SETS.items() if n != "first letter"}
  return made | {"first letter": first_letter(words)}


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_texts_of_every_class(sets, name):
  one = sets[name]
  assert one.name == name
  counts = [one.of(c).sum() for c in range(len(one.classes))]
  assert min(counts) >= 12
  assert sum(counts) == len(one.rows) == len(one.groups)
  assert all(row[0] == 2 for row in one.rows)
  assert len(set(one.rows)) == len(one.rows)


@pytest.mark.parametrize("name", SETS)
def test_whole_groups_of_every_class_are_held_out(sets, name):
  one = sets[name]
  fit, held = one.split(0.3, seed=1)
  assert sorted([*fit, *held]) == list(range(len(one.rows)))
  assert not set(one.groups[fit]) & set(one.groups[held])
  for c in range(len(one.classes)):
    own = one.of(c)
    assert 0.15 < own[held].sum() / own.sum() < 0.45
  again, other = one.split(0.3, seed=1)[1], one.split(0.3, seed=2)[1]
  np.testing.assert_array_equal(again, held)
  assert set(other) != set(held)


def test_first_letters_are_of_words_with_a_space(words):
  found = first_letter(words, per_letter=9)
  assert found.classes == ("x", "y", "z")
  for (_, token), label in zip(found.rows, found.labels):
    assert PIECES[token][:2] == f" {found.classes[label]}"
  assert len(found.rows) == 27
  with pytest.raises(TextError, match="too few words"):
    first_letter(words, least=9)


def test_sentiment_and_topic_are_independent(tiny_lm):
  both = sentiment_by_topic(tiny_lm)
  assert both.intended.rows is both.spurious.rows
  counts = np.zeros((2, 2), int)
  np.add.at(counts, (both.intended.labels, both.spurious.labels), 1)
  assert (counts == counts[0, 0]).all()
  text = tiny_lm.tokenizer.decode(both.intended.rows[0][1:])
  assert text == "The film was wonderful."


def test_a_class_of_one_group_is_refused():
  one = Labelled(
    "it", ((2,),) * 3, np.array([0, 0, 1]), ("a", "b"), np.arange(3), False
  )
  with pytest.raises(TextError, match="two groups"):
    one.split()


def test_sets_by_name(tiny_lm):
  (one,) = concepts(tiny_lm, ["number"])
  assert one.name == "number"
  with pytest.raises(ConfigError, match="no such set"):
    list(concepts(tiny_lm, ["colour"]))
  assert set(module.SETS) >= {"language", "sentiment", "part of speech"}
