"""Order, scanning, one compilation, printing, and what cannot be an edit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import errors, surgery
from gemma_scope.model import gemma
from gemma_scope.model.build import abstract_gemma
from gemma_scope.model.stack import active_sites
from gemma_scope.sites import Site
from gemma_scope.surgery.intervene import check_positions, intervene
from gemma_scope.testing import programs
from gemma_scope.testing.tiny import tiny_config
from tests.surgery.stand_ins import IDS, close, values

VECTOR = np.random.default_rng(0).normal(size=32)
MANY = [
  surgery.steer("resid_post[:]", VECTOR, scale=0.1),
  surgery.ablate("z[1,7,13]", heads=[1]),
  surgery.scale("mlp_act[8]", 0.3, positions=surgery.all_but_bos()),
  surgery.clamp(
    "resid_mid[::3]", low=-1.0, high=1.0, positions=slice(-3, None)
  ),
  surgery.project_out("attn_write[2,8]", VECTOR),
]


def test_at_one_site_the_list_is_the_order(double, model):
  site, end = Site("mlp_write", 3), Site("resid_post", 7)
  add, halve = surgery.add(site, VECTOR), surgery.scale(site, 0.5)
  edits = {
    (add, halve): lambda v: (v + VECTOR) * 0.5,
    (halve, add): lambda v: v * 0.5 + VECTOR,
  }
  for order, edit in edits.items():
    found = values(intervene(model, order), [str(end)])[str(end)][0]
    close(found, double.oracle({site: edit})[end])


def test_later_surgery_acts_on_what_earlier_left(double, model):
  site, end = Site("mlp_write", 3), Site("resid_post", 7)
  twice = intervene(model, surgery.scale(site, 0.5))
  twice = intervene(twice, surgery.add(site, VECTOR))
  found = values(twice, [str(end)])[str(end)][0]
  edit = lambda v: v * 0.5 + VECTOR  # noqa: E731
  close(found, double.oracle({site: edit})[end])


def test_scanned_equals_unrolled(deep):
  sites = ["resid_post[13]", "resid_mid[8]", "logits"]
  found = {k: values(intervene(m, MANY), sites) for k, m in deep.models.items()}
  for site in sites:
    close(found["scanned"][site], found["unrolled"][site], 1e-5)
  plain = values(deep.models["scanned"], sites)["logits"]
  assert not np.allclose(plain, found["scanned"]["logits"], atol=0.1)


@pytest.mark.parametrize(
  ("edits", "scans"),
  [
    ([surgery.steer("resid_post[:]", VECTOR)], 1),
    ([surgery.ablate("z[3::6]", heads=0), surgery.scale("embed", 2.0)], 1),
    ([surgery.add("z[:]", {Site("z", i): float(i) for i in range(26)})], 1),
    ([surgery.scale("mlp_write[8]", 2.0)], 3),
    ([surgery.scale("mlp_write[25]", 2.0)], 1),
  ],
)
def test_edits_stay_scanned_where_they_can(edits, scans):
  """26 layers are four periods and two layers."""
  model = abstract_gemma(tiny_config(num_layers=26))
  ids = jax.ShapeDtypeStruct((1, 16), jnp.int32)
  found = programs.operations(
    lambda m, i: gemma.run(m, i, i)[0], intervene(model, edits), ids
  )
  assert programs.count(found, "scan") == scans


def test_strength_position_and_direction_compile_nothing_anew(model):
  count = 0

  @jax.jit
  def run(edited):
    nonlocal count
    count += 1
    return gemma.run(edited, IDS, (IDS != 0).astype(np.int32))[0]

  for i in range(3):
    edit = surgery.steer(
      "resid_post[4]", VECTOR + i, scale=i + 1.0, positions=i
    )
    again = surgery.occurrence(int(IDS[0, i]), i)
    run(intervene(model, [edit, surgery.scale("z[2]", i, positions=again)]))
  assert count == 1


def test_the_printed_model_shows_every_edit(model):
  edits = [
    surgery.steer("resid_post[4]", VECTOR, positions=surgery.all_but_bos()),
    surgery.ablate("z[3]", heads=[1]),
  ]
  shown = repr(intervene(model, edits))
  for part in ("Steer(", "Set(", "heads=(1,)", "Not(", "layers=(4,)"):
    assert part in shown
  assert "Intervened(" not in repr(model)


def test_edits_leave_the_weights_and_the_model(model):
  before = jax.tree.leaves(model)
  intervene(model, MANY[:1])
  assert active_sites(model) == []
  assert all(a is b for a, b in zip(before, jax.tree.leaves(model)))


@pytest.mark.parametrize(
  ("edit", "error", "message"),
  [
    (surgery.ablate("z[8]"), errors.SiteError, "8 layers"),
    (surgery.ablate("zz[3]"), errors.SiteError, "no site of this name"),
    (surgery.ablate([]), errors.SiteError, "no site to edit"),
    ("z[3]", errors.ConfigError, "no intervention"),
    (
      surgery.ablate("resid_post[3].latents[5]"),
      errors.SiteError,
      "no dictionary reads this site",
    ),
    (
      surgery.add("z[3]", np.zeros(15)),
      errors.SiteError,
      "does not fit the site",
    ),
    (
      surgery.ablate("resid_post[3].error"),
      errors.SiteError,
      "no such part of a site here",
    ),
  ],
)
def test_what_cannot_be_done_is_refused(model, edit, error, message):
  with pytest.raises(error, match=message) as caught:
    intervene(model, [edit])
  assert caught.value.received
  assert caught.value.instead


@pytest.mark.parametrize(
  ("positions", "message"),
  [
    (20, "position 20, a prompt of"),
    (-40, "position -40"),
    ([1, 30], "position 30"),
    (slice(25, 30), "positions 25:30"),
    (surgery.occurrence(7), "occurrence 0 of token 7, found 0"),
    (surgery.in_each_row([1, 2]), "positions of 2 rows, 1 prompts"),
  ],
)
def test_a_position_outside_the_prompt_is_refused(tiny_lm, positions, message):
  edited = tiny_lm.replace(
    intervene(tiny_lm.model, surgery.ablate("z[3]", positions=positions))
  )
  with pytest.raises(errors.TextError, match=message):
    gs.capture(edited, [2, 9, 9, 5], ["resid_post[3]"])


def test_positions_that_will_be_generated_are_no_mistake(model):
  edited = intervene(model, surgery.ablate("z[3]", positions=6))
  check_positions(edited, [np.arange(4)], new=3)
  with pytest.raises(errors.TextError, match="4 tokens and 2 new ones"):
    check_positions(edited, [np.arange(4)], new=2)
