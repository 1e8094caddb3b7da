import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.errors import TextError

PROMPTS = ["Mary and John went to Paris", "Paris"]


def test_the_top_tokens_are_those_of_the_logits(tiny_lm):
  found = gs.predict(tiny_lm, PROMPTS, k=3)
  for i, prompt in enumerate(PROMPTS):
    acts = gs.capture(tiny_lm, prompt, ["logits"], logits_at=-1)
    logits = np.asarray(acts["logits"].data_array, np.float64)[0, 0]
    probs = np.exp(logits) / np.exp(logits).sum()
    top = np.argsort(-logits)[:3]
    assert [p.id for p in found.rows[i]] == top.tolist()
    np.testing.assert_allclose(
      [p.prob for p in found.rows[i]], probs[top], rtol=1e-4
    )
    assert found.rows[i][0].text == tiny_lm.tokenizer.token_text(top[0])


def test_another_position(tiny_lm):
  inner = gs.predict(tiny_lm, PROMPTS[0], position=2)
  ids = tiny_lm.tokenizer.encode(PROMPTS[0])[:3]
  assert inner.rows[0][0].id == gs.predict(tiny_lm, ids).rows[0][0].id


def test_displays_tokens_and_refuses_what_is_not_there(tiny_lm):
  shown = gs.predict(tiny_lm, PROMPTS[1])
  assert "%" in shown._repr_html_()
  with pytest.raises(TextError, match="no token at the target's position"):
    gs.predict(tiny_lm, PROMPTS[1], position=40)
