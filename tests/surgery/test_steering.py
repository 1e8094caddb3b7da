"""The short form: address -> what is added there."""

import numpy as np
import pytest

from gemma_scope import errors, surgery
from gemma_scope.sites import Site
from gemma_scope.surgery.steering import steered
from tests.surgery.stand_ins import sae, values

VECTOR = np.random.default_rng(0).normal(size=32)
SITES = ["resid_post[4]", "resid_post[7]"]


def test_latents_by_a_number_and_sites_by_a_vector(model):
  spliced = surgery.splice(model, {"resid_post[4]": sae()})
  short = {"resid_post[4].latents[3]": 2.0, Site("resid_post", 7): VECTOR}
  long = [
    surgery.add("resid_post[4].latents", 2.0, units=[3]),
    surgery.steer("resid_post[7]", VECTOR),
  ]
  found, expected = (values(steered(spliced, s), SITES) for s in (short, long))
  for site in SITES:
    np.testing.assert_array_equal(found[site], expected[site])


@pytest.mark.parametrize(
  ("steering", "message"),
  [
    ({}, "nothing to steer by"),
    ([], "nothing to steer by"),
    ({"resid_post[4]": 2.0}, "a site needs a direction"),
    ({"resid_post[4].latents[3]": 2.0}, "no dictionary reads this site"),
  ],
)
def test_what_steers_nothing_is_refused(model, steering, message):
  with pytest.raises(errors.GemmaScopeError, match=message):
    steered(model, steering)
