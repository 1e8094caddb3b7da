"""Layers are put where they were asked for; early stops run nothing more."""

import jax
import pytest

from gemma_scope import surgery
from gemma_scope.errors import SiteError
from gemma_scope.model import gemma
from gemma_scope.model.build import abstract_gemma
from gemma_scope.model.site_layer import SiteLayer
from gemma_scope.sites import Site
from gemma_scope.surgery.select import wrap_sites
from gemma_scope.surgery.taps import Offset, Tap
from gemma_scope.testing import oracle, programs
from gemma_scope.testing.tiny import tiny_config

LAYERS = 14  # two periods and two layers


@pytest.fixture(scope="module", params=[True, False], ids=["scan", "unrolled"])
def model(request):
  return abstract_gemma(tiny_config(num_layers=LAYERS), scan=request.param)


def taps_of(model):
  """(name, layers) of every tap, in the order of the leaves."""
  found = []

  def visit(node):
    if isinstance(node, Tap):
      found.append((node.name, node.layers))
    return False

  jax.tree_util.tree_flatten(model, is_leaf=visit)
  return sorted(found, key=str)


def test_places_of_a_scanned_stack_share_a_tap():
  model = abstract_gemma(tiny_config(num_layers=LAYERS))
  tapped = surgery.tap(model, ["z[1,7,12]", "pattern[5]", "embed", "logits"])
  assert taps_of(tapped) == [
    ("embed", None),
    ("logits", None),
    ("pattern", (5,)),
    ("z", (1, 7)),
    ("z", (12,)),
  ]


def test_every_site_can_be_wrapped_and_the_model_stays(model):
  sites = oracle.every_site(LAYERS)
  tapped = surgery.tap(model, sites)
  assert taps_of(model) == []
  layers = [layers for _, layers in taps_of(tapped)]
  assert sum(1 if found is None else len(found) for found in layers) == len(
    sites
  )
  before, after = jax.tree.leaves(model), jax.tree.leaves(tapped)
  assert all(a is b for a, b in zip(before, after, strict=True))


def test_later_surgery_wraps_earlier_surgery(model):
  changed = surgery.tap(surgery.offset(model, ["embed"]), ["embed"])
  assert isinstance(changed.embed, Tap)
  assert isinstance(changed.embed.inner, Offset)
  assert isinstance(changed.embed.inner.inner, SiteLayer)
  twice = surgery.offset(surgery.tap(model, ["z[3]"]), ["z[3,9]"])
  block = (twice.stack.period or twice.stack.rest)[3]
  z = block.sublayers[1].delta.sublayers[2].z
  assert isinstance(z, Offset)
  assert isinstance(z.inner, Tap)
  assert z.inner.layers == (3,)


def test_the_maker_is_told_where(model):
  told = []

  def make(inner, name, layers):
    told.append((type(inner), name, layers))
    return inner

  wrap_sites(model, [Site("mlp_in", 13), Site("final_norm")], make)
  assert told == [
    (SiteLayer, "mlp_in", (13,)),
    (SiteLayer, "final_norm", None),
  ]


@pytest.mark.parametrize("surgeon", ["tap", "offset", "stop_after"])
@pytest.mark.parametrize(
  ("site", "message"),
  [
    (Site("resid_post", 14), "14 layers"),
    ("resid_post[-15]", "14 layers"),
    ("resid_past[1]", "did you mean resid_post"),
    ("embed[0]", "one embed in the model"),
    (12, "string or a Site"),
  ],
)
def test_a_site_that_is_not_there_is_refused(model, surgeon, site, message):
  """Nothing is worse than a tap that never fires."""
  with pytest.raises(SiteError, match=message):
    getattr(surgery, surgeon)(model, [site])


@pytest.mark.parametrize(
  ("sites", "stop"),
  [
    ([], 0),
    (["embed"], 0),
    (["resid_pre[0]"], 1),
    (["z[3]", "resid_post[8]", "embed"], 9),
    (["resid_post[-1]"], LAYERS),
    (["final_norm"], LAYERS),
    (["logits", "z[2]"], LAYERS),
  ],
)
def test_stops_behind_the_last_site(model, sites, stop):
  stopped = surgery.stop_after(model, sites)
  assert stopped.stack.stop == stop
  assert model.stack.stop == LAYERS
  ids = jax.ShapeDtypeStruct((1, 8), "int32")
  run = programs.operations(lambda m, i: gemma.run(m, i, i), stopped, ids)
  assert programs.count(run, "dot_general") == 7 * stop


def test_a_stop_saves_the_work_it_promises():
  """As the compiler counts it, for an unrolled stack."""
  model = abstract_gemma(tiny_config(num_layers=LAYERS), scan=False)
  ids = jax.ShapeDtypeStruct((1, 8), "int32")

  def flops(sites):
    stopped = surgery.stop_after(model, sites)
    run = jax.jit(lambda m, i: gemma.run(m, i, i)[0]).lower(stopped, ids)
    return run.cost_analysis()["flops"]

  whole, part = flops(["logits"]), flops(["resid_post[6]"])
  assert part / whole == pytest.approx(0.5, abs=0.02)
