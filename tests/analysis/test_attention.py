import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.analysis.attention import attention_patterns
from gemma_scope.errors import SiteError

PROMPT = "Mary and John went to Paris"


def test_patterns_are_the_captured_ones_and_sum_to_one(tiny_lm):
  seen = attention_patterns(tiny_lm, PROMPT, [1, -1])
  last = tiny_lm.config.num_layers - 1
  assert seen.layers == (1, last)
  acts = gs.capture(tiny_lm, PROMPT, [f"pattern[{last}]"])
  expected = np.asarray(acts[f"pattern[{last}]"].data_array)[0, 2]
  head = seen.head(last, 2)
  np.testing.assert_array_equal(head, expected)
  np.testing.assert_allclose(head.sum(axis=-1), 1.0, atol=1e-6)
  assert np.all(np.triu(head, 1) == 0)


def test_displays_every_head_with_its_tokens(tiny_lm):
  page = attention_patterns(tiny_lm, PROMPT, [0])._repr_html_()
  heads = tiny_lm.config.num_heads
  assert all(f"pattern[0], head {h}" in page for h in range(heads))
  assert "John" in page


def test_a_layer_that_does_not_exist(tiny_lm):
  with pytest.raises(SiteError, match="layer"):
    attention_patterns(tiny_lm, PROMPT, [99])
