"""Heads and units that are not there are refused when edits are made."""

import numpy as np
import pytest

from gemma_scope import errors, surgery
from gemma_scope.surgery.interventions.where import where


@pytest.mark.parametrize(
  ("intervention", "message"),
  [
    (surgery.ablate("z[3]", heads=[4]), r"There are 4 heads at z\[3\]"),
    (surgery.ablate("key[3]", heads=2), r"There are 2 heads at key\[3\]"),
    (surgery.ablate("resid_post[3]", heads=0), "has no heads"),
    (surgery.ablate("mlp_act[3]", units=[48]), "There are 48 units"),
    (surgery.ablate("pattern[3]", units=[0]), "no list of units"),
  ],
)
def test_what_the_site_has_not(double, intervention, message):
  with pytest.raises(errors.SiteError, match=message) as error:
    surgery.intervene(double.models["scanned"], intervention)
  assert error.value.instead


@pytest.mark.parametrize("given", [-1, [], [1.5], "x", [0, -3]])
def test_what_numbers_nothing(given):
  with pytest.raises(errors.SiteError, match="whole numbers from 0"):
    where(heads=given)


def test_numbers_of_any_kind():
  assert where(heads=3).heads == (3,)
  assert where(units=np.array([3, 1])).units == (3, 1)
  assert where().positions is None
