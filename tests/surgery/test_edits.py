import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import errors

PROMPT = "Mary and John went to Paris"


def halve(value):
  return value * 0.5


def test_an_edit_changes_its_layer_and_what_follows(tiny_lm):
  sites = ["mlp_write[3]", "mlp_write[2]", "resid_mid[3]", "resid_post[3]"]
  plain = gs.capture(tiny_lm, PROMPT, sites)
  edited = tiny_lm.replace(
    gs.surgery.edit(tiny_lm.model, "mlp_write[3]", halve)
  )
  found = gs.capture(edited, PROMPT, sites)

  def data(acts, site):
    return np.asarray(acts[site].data_array)

  np.testing.assert_array_equal(
    data(found, "mlp_write[2]"), data(plain, "mlp_write[2]")
  )
  half = 0.5 * data(plain, "mlp_write[3]")
  np.testing.assert_array_equal(data(found, "mlp_write[3]"), half)
  np.testing.assert_allclose(
    data(found, "resid_post[3]"), data(plain, "resid_mid[3]") + half, atol=1e-6
  )


def test_edits_compose_in_the_order_they_were_made(tiny_lm):
  add = gs.surgery.edit(tiny_lm.model, "resid_post[0]", lambda v: v + 1.0)
  both = gs.surgery.edit(add, "resid_post[0]", halve)
  plain = gs.capture(tiny_lm, PROMPT, ["resid_post[0]"])["resid_post[0]"]
  found = gs.capture(tiny_lm.replace(both), PROMPT, ["resid_post[0]"])
  np.testing.assert_allclose(
    np.asarray(found["resid_post[0]"].data_array),
    (np.asarray(plain.data_array) + 1.0) * 0.5,
    rtol=1e-6,
  )


def test_edits_show_in_the_printed_model(tiny_lm):
  edited = gs.surgery.edit(tiny_lm.model, "z[1]", halve)
  assert "Edit(" in repr(edited)
  assert "Edit(" not in repr(tiny_lm.model)


def test_a_site_that_is_none(tiny_lm):
  with pytest.raises(errors.SiteError, match="mlp_write"):
    gs.surgery.edit(tiny_lm.model, "mlp_wrote[1]", halve)
