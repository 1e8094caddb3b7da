"""Arrays meet the axes of a site, or are refused with what would fit."""

import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope import errors, surgery
from gemma_scope.sites import Site
from gemma_scope.surgery.interventions.protocol import fitted
from tests.surgery.stand_ins import values

SIZES = {"heads": 4, "projection": 16}
Z = Site("z", 3)


@pytest.mark.parametrize(
  ("given", "names"),
  [
    (2.0, ()),
    (np.zeros(16), ("projection",)),
    (np.zeros((4, 16)), ("heads", "projection")),
    (pz.nx.wrap(jnp.zeros(4), "heads"), ("heads",)),
    (
      pz.nx.wrap(jnp.zeros((16, 2)), "projection", "batch"),
      ("batch", "projection"),
    ),
    ({Z: 1.0}, ()),
    ({"z[3]": np.zeros(16)}, ("projection",)),
  ],
)
def test_names_of_the_axes(given, names):
  found = fitted(given, Z, SIZES)
  assert tuple(found.named_axes) == names
  assert found.dtype == jnp.float32


@pytest.mark.parametrize(
  "given",
  [
    np.zeros(4),
    np.zeros((16, 4)),
    np.zeros((2, 4, 16)),
    pz.nx.wrap(jnp.zeros(5), "heads"),
    pz.nx.wrap(jnp.zeros(16), "embedding"),
  ],
)
def test_what_does_not_fit_is_refused(given):
  with pytest.raises(errors.SiteError, match=r"does not fit the site z\[3\]"):
    fitted(given, Z, SIZES)


def test_a_mapping_must_hold_every_site():
  with pytest.raises(errors.SiteError, match="no array for one of the sites"):
    fitted({Site("z", 4): 1.0}, Z, SIZES)


def test_the_dtype_of_the_site_stays(double):
  model = surgery.intervene(
    double.models["unrolled"], surgery.scale("logits", np.float64(2.0))
  )
  assert values(model, ["logits"])["logits"].dtype == np.float32
