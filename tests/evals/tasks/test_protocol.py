"""Tasks hold pairs of equal length that the model solves, and say how many."""

import itertools

import numpy as np
import pytest

from gemma_scope.attribution.attribute import attribute
from gemma_scope.errors import TextError
from gemma_scope.evals.tasks.protocol import Pair, fits, make_task


def pairs():
  """Capitals and the other way round: a model that likes one solves it."""
  for word in (" is", " in", " gave", " to", " drink", " and", " the"):
    for right, wrong in itertools.permutations((" Paris", " Rome")):
      yield Pair(
        f" the capital of France{word}",
        f" the capital of Rome{word}",
        (right,),
        (wrong,),
      )


@pytest.fixture(scope="module")
def task(tiny):
  return make_task(tiny.lm, "words", pairs(), 7)


def test_every_pair_is_solved(tiny, task):
  assert task.n == 7
  assert (task.clean_value > 0).all()
  assert task.n <= task.tried <= 14
  assert task.solved == task.n / task.tried
  found = attribute(tiny.lm, task.clean, task.target, method="input_x_gradient")
  np.testing.assert_allclose(found.target, task.clean_value, rtol=1e-3)


def test_tokens(tiny, task):
  np.testing.assert_array_equal(task.clean.lengths, task.corrupt.lengths)
  here = task.first_difference
  place = tiny.lm.tokenizer.encode(task.pairs[0].clean).index(
    tiny.lm.tokenizer.token_id(" France")
  )
  assert (here == place).all()


def test_some_pairs(task):
  part = task.take(np.asarray([4, 1]))
  assert part.pairs == (task.pairs[4], task.pairs[1])
  np.testing.assert_array_equal(part.right, task.right[[4, 1]])
  np.testing.assert_array_equal(part.clean_value, task.clean_value[[4, 1]])
  width = part.clean.width
  np.testing.assert_array_equal(part.clean.ids, task.clean.ids[[4, 1], :width])
  assert task.take(slice(2)).n == 2


def test_fewer_pairs_than_wanted(tiny):
  assert make_task(tiny.lm, "words", pairs(), 90).n == 7  # one of each two


def test_several_right_tokens_count_equally(tiny):
  right, wrong = (" Paris", " Mary"), (" Rome", " John")
  both = [Pair(" the capital", " the city", *x) for x in ((right, wrong),) * 2]
  both += [Pair(" the capital", " the city", wrong, right)]
  task = make_task(tiny.lm, "many", iter(both), 2)
  lm = tiny.lm
  logits = {
    token: float(
      attribute(lm, " the capital", token, method="input_x_gradient").target[0]
    )
    for token in (*right, *wrong)
  }
  r, w = (
    [logits[t] for t in getattr(task.pairs[0], side)]
    for side in ("right", "wrong")
  )
  np.testing.assert_allclose(
    task.clean_value[0], np.mean(r) - np.mean(w), rtol=1e-3
  )


def test_display(task):
  assert "n=7" in repr(task)
  assert "France" in task._repr_html_()


def test_what_does_not_fit_is_left_out(tiny):
  one = (" Paris",), (" Rome",)
  assert fits(tiny.lm, Pair(" the capital", " the city", *one))
  assert not fits(tiny.lm, Pair(" the", " the capital", *one))
  many = Pair(" the capital", " the city", (" Oslo",), (" Rome",))
  assert not fits(tiny.lm, many)
  with pytest.raises(TextError, match="solves no prompt"):
    make_task(tiny.lm, "long", itertools.repeat(many), 2)
