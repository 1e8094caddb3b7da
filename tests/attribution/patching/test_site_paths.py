"""A path through a site's activations adds up to patching all of it."""

import numpy as np
import pytest

from gemma_scope.attribution import logit_difference
from gemma_scope.attribution.patching.approximate import approximate_patching
from gemma_scope.attribution.patching.question import EstimateOptions
from gemma_scope.sites import resolve
from tests.attribution.patching.patch_checks import (
  cells_of,
  exact_effects,
  other_prompt,
)

WANTED = logit_difference(7, 9)
AT = ("embed", "attn_write[:]", "key[1]", "pattern[0]")


def estimates(double, at, **options):
  return approximate_patching(
    double.lm,
    other_prompt(double.ids),
    double.ids,
    WANTED,
    method="integrated_gradients",
    at=at,
    options=EstimateOptions(path="activations", **options),
  )


@pytest.fixture(scope="module")
def found(double):
  return estimates(double, AT, steps=16)


@pytest.mark.parametrize("site", resolve(AT, 2), ids=str)
def test_cells_add_up_to_the_exact_patch(double, found, site):
  source = other_prompt(double.ids)
  exact = exact_effects(double.lm, source, double.ids, WANTED, site, [()])[0]
  assert abs(exact) > 1e-3
  np.testing.assert_allclose(cells_of(found, site).sum(), exact, rtol=2e-3)


def test_pairs_keep_their_places(double):
  first, other = double.ids, other_prompt(double.ids)
  options = EstimateOptions(path="activations", steps=2)

  def ask(source, base):
    found = approximate_patching(
      double.lm,
      np.stack(source),
      np.stack(base),
      WANTED,
      method="integrated_gradients",
      at=("attn_write[:]",),
      options=options,
    )
    return np.stack([value.data_array for value in found.values()])

  mixed = ask((other, first), (first, other))
  noised, denoised = (
    ask((other, other), (first, first)),
    ask((first, first), (other, other)),
  )
  np.testing.assert_allclose(mixed[:, 0], noised[:, 0], atol=1e-5)
  np.testing.assert_allclose(mixed[:, 1], denoised[:, 1], atol=1e-5)
  assert np.abs(noised[:, 0] - denoised[:, 0]).max() > 1e-2


@pytest.mark.slow
def test_layers_of_a_scanned_stack_are_told_apart(scanned):
  found = estimates(scanned, ("mlp_write[0,5,6]",), steps=24)
  source = other_prompt(scanned.ids)
  for site in found:
    exact = exact_effects(scanned.lm, source, scanned.ids, WANTED, site, [()])
    np.testing.assert_allclose(cells_of(found, site).sum(), exact[0], rtol=2e-3)


def test_elements_are_kept_when_asked_for(double, found):
  single = estimates(double, AT, steps=16, per_element=True)
  for site in found:
    value = cells_of(single, site)
    assert value.ndim == len(site.info.axes) - 1
    np.testing.assert_allclose(value.sum(), cells_of(found, site).sum(), 1e-4)
