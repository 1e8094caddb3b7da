import numpy as np
from penzai import pz
import pytest

from gemma_scope.activations.by_site import BySite
from gemma_scope.errors import SiteError
from gemma_scope.sites import Site

POST = Site("resid_post", 2)


@pytest.fixture
def arrays():
  return BySite({POST: pz.nx.wrap(np.ones(3), "seq")})


def test_a_string_is_as_good_as_a_site(arrays):
  assert arrays["resid_post[2]"] is arrays[POST]
  assert "resid_post[2]" in arrays
  assert POST in arrays
  assert list(map(str, arrays)) == ["resid_post[2]"]
  assert len(arrays) == 1


def test_what_is_not_there(arrays):
  assert "resid_post[3]" not in arrays
  assert arrays.get("resid_post[2]") is arrays[POST]
  with pytest.raises(SiteError, match=r"one of resid_post\[2\]"):
    arrays["resid_post[3]"]
