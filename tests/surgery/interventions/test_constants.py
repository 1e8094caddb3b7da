"""Set, add, scale, clamp and ablate, each against the float64 oracle."""

import numpy as np
import pytest

from gemma_scope import errors, surgery
from gemma_scope.sites import Site, resolve
from tests.surgery.stand_ins import DEEP, LAYERS, close, values

VECTOR = np.random.default_rng(3).normal(size=32)
HEADS = np.random.default_rng(4).normal(size=(4, 16))
LAST = "resid_post[7]"


def only(index, change):
  """A function that changes what `index` chooses."""

  def edit(value):
    value = value.copy()
    value[index] = np.broadcast_to(change(value), value.shape)[index]
    return value

  return edit


EVERY = (slice(None),)
CASES = {
  "set": (
    surgery.set_to("mlp_write[3]", VECTOR),
    "mlp_write[3]",
    only(EVERY, lambda v: VECTOR),
  ),
  "add": (
    surgery.add("attn_write[:]", VECTOR, positions=[1, -1]),
    "attn_write[:]",
    only(([1, 11],), lambda v: v + VECTOR),
  ),
  "scale": (
    surgery.scale("mlp_act[2,6,7]", -0.5, units=[3, 40]),
    "mlp_act[2,6,7]",
    only((slice(None), [3, 40]), lambda v: v * -0.5),
  ),
  "clamp": (
    surgery.clamp("resid_mid[4]", low=-0.2, high=VECTOR),
    "resid_mid[4]",
    only(EVERY, lambda v: np.minimum(np.maximum(v, -0.2), VECTOR)),
  ),
  "zero heads": (
    surgery.ablate("z[4:7]", heads=[1, 3]),
    "z[4:7]",
    only((slice(None), [1, 3]), lambda v: v * 0),
  ),
  "mean heads": (
    surgery.ablate("z[6]", mean=HEADS, heads=2, positions=slice(3, 5)),
    "z[6]",
    only((slice(3, 5), 2), lambda v: HEADS[None]),
  ),
  "key": (
    surgery.scale("key[1]", 2.0, heads=[1]),
    "key[1]",
    only((slice(None), 1), lambda v: v * 2),
  ),
  "pattern": (
    surgery.scale("pattern[5]", 0.5, heads=0, positions=-1),
    "pattern[5]",
    only((0, 11), lambda v: v * 0.5),
  ),
  "embed": (
    surgery.add("embed", VECTOR, positions=surgery.all_but_bos()),
    "embed",
    only((slice(1, None),), lambda v: v + VECTOR),
  ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_direct_computation(double, model, name):
  """On row 0, which fills all columns."""
  intervention, specs, edit = CASES[name]
  sites = resolve(specs, LAYERS)
  found = values(surgery.intervene(model, intervention), (LAST, "logits"))
  expected = double.oracle(dict.fromkeys(sites, edit))
  for site in (Site("resid_post", 7), Site("logits")):
    close(found[str(site)][0], expected[site])
  plain = double.oracle()[Site("resid_post", 7)]
  assert not np.allclose(plain, expected[Site("resid_post", 7)], rtol=1e-3)


@pytest.mark.parametrize("kind", ["scanned", "unrolled"])
def test_one_array_for_each_site(deep, kind):
  """For all layers of a scan, for some, and behind it."""
  model = deep.models[kind]
  for specs in ("mlp_write[2,13]", "mlp_write[:]"):
    sites = resolve(specs, DEEP)
    arrays = {site: VECTOR * (1 + site.layer) for site in sites}
    edited = surgery.intervene(model, surgery.add(specs, arrays))
    found = values(edited, ["resid_post[13]"])
    edits = {s: lambda v, a=a: v + a for s, a in arrays.items()}
    expected = deep.oracle(edits)[Site("resid_post", 13)]
    close(found["resid_post[13]"][0], expected)


def test_the_final_norm_and_logits_can_be_edited(double, model):
  edits = [
    surgery.add("final_norm", VECTOR, positions=-1),
    surgery.add("logits", 3.0, units=[7], positions=[0, -1]),
  ]
  found = values(surgery.intervene(model, edits), ["logits"])["logits"]
  normed = double.oracle()[Site("final_norm")].copy()
  normed[-1] += VECTOR
  table = np.asarray(double.tensors["embedder/input_embedding"], np.float64)
  logits = normed @ table.T
  logits[[0, -1], 7] += 3
  close(found[0], logits)


def test_negative_positions_count_from_each_rows_end(double, model):
  found = values(
    surgery.intervene(model, surgery.set_to("mlp_write[3]", 0.0, positions=-2)),
    ["mlp_write[3]"],
  )["mlp_write[3]"]
  zero = (found == 0).all(axis=-1)
  assert zero[0].nonzero()[0].tolist() == [10]
  assert zero[1, :9].nonzero()[0].tolist() == [7]


def test_clamping_without_a_bound_is_refused():
  with pytest.raises(errors.ConfigError, match="needs a bound"):
    surgery.clamp("z[3]")
