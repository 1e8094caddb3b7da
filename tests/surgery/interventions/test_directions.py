"""Steering and projection against the equations, in float64."""

import numpy as np
import pytest

from gemma_scope import errors, surgery
from gemma_scope.sites import Site
from tests.surgery.stand_ins import close, values

SITE = Site("resid_post", 4)
DIRECTION = np.random.default_rng(5).normal(size=32)
SPAN = np.random.default_rng(6).normal(size=(3, 32))
LAST = "resid_post[7]"


def projected(value, rows):
  """Least squares, another way than an orthonormal basis."""
  weights, *_ = np.linalg.lstsq(rows.T, value.T, rcond=None)
  return (rows.T @ weights).T


UNIT = DIRECTION / np.linalg.norm(DIRECTION)
CASES = {
  "steer": (
    surgery.steer(SITE, DIRECTION, scale=4.0),
    lambda v: v + 4 * DIRECTION,
  ),
  "relative": (
    surgery.steer(SITE, DIRECTION, scale=0.5, norm=9.0),
    lambda v: v + 4.5 * UNIT,
  ),
  "relative by site": (
    surgery.steer(SITE, {SITE: DIRECTION}, scale=-2.0, norm={SITE: 3.0}),
    lambda v: v - 6 * UNIT,
  ),
  "out of one": (
    surgery.project_out(SITE, DIRECTION * 7),
    lambda v: v - (v @ UNIT)[:, None] * UNIT,
  ),
  "out of three": (
    surgery.project_out(SITE, SPAN),
    lambda v: v - projected(v, SPAN),
  ),
  "onto three": (
    surgery.project_onto("resid_post[4]", SPAN),
    lambda v: projected(v, SPAN),
  ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_direct_computation(double, model, name):
  intervention, edit = CASES[name]
  found = values(surgery.intervene(model, intervention), [LAST])[LAST]
  close(found[0], double.oracle({SITE: edit})[Site("resid_post", 7)])


def test_one_head_is_projected(double, model):
  rows = np.random.default_rng(7).normal(size=16)
  unit = rows / np.linalg.norm(rows)

  def edit(value):
    value = value.copy()
    value[:, 2] -= (value[:, 2] @ unit)[:, None] * unit
    return value

  edited = surgery.intervene(
    model, surgery.project_out("z[6]", rows, heads=[2])
  )
  expected = double.oracle({Site("z", 6): edit})[Site("resid_post", 7)]
  close(values(edited, [LAST])[LAST][0], expected)


@pytest.mark.parametrize(
  "rows", [np.zeros(8), np.ones((2, 8)), np.full(8, np.nan), np.ones((2, 2, 2))]
)
def test_directions_that_span_nothing_are_refused(rows):
  with pytest.raises(errors.ConfigError, match="independent of one another"):
    surgery.project_out("z[3]", rows)


@pytest.mark.parametrize("vector", [np.zeros(8), [np.inf, 1.0]])
def test_a_direction_to_nowhere_is_refused(vector):
  with pytest.raises(errors.ConfigError, match="must point somewhere"):
    surgery.steer("resid_post[3]", vector)


def test_another_width_is_refused(double):
  model = double.models["scanned"]
  with pytest.raises(errors.SiteError, match="another width than the site"):
    surgery.intervene(model, surgery.project_out("z[3]", np.ones(32)))
