"""Spliced dictionaries: values, errors, gradients, many layers, and misuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope import errors, surgery
from gemma_scope.model import gemma
from gemma_scope.sites import Site
from gemma_scope.surgery import intervene, offset, splice, tap
from tests.surgery.stand_ins import (
  IDS,
  Cross,
  CrossLayer,
  Sae,
  close,
  normal,
  sae,
  values,
)

END = "resid_post[7]"
ROW = IDS[:1]
SEGMENTS = np.ones_like(ROW)


def float64(dictionary):
  return jax.tree.map(lambda a: np.asarray(a, np.float64), dictionary)


def rebuilt(dictionary, x):
  d = float64(dictionary)
  latents = np.maximum(x @ d.encoder + d.bias[0], 0)
  return latents @ d.decoder + d.out_bias[0]


def flat_z(dictionary):
  return lambda v: rebuilt(dictionary, v.reshape(len(v), -1)).reshape(v.shape)


ONE_SITE = {
  "resid_post[4]": (sae(), lambda v: rebuilt(sae(), v)),
  "z[3]": (sae(64, 30), flat_z(sae(64, 30))),
  "mlp_write[7]": (sae(seed=5), lambda v: rebuilt(sae(seed=5), v)),
  "embed": (sae(), lambda v: rebuilt(sae(), v)),
}


@pytest.mark.parametrize("spec", ONE_SITE)
def test_drop_is_the_reconstruction_alone(double, model, spec):
  """Also the loss that an independent computation gives."""
  dictionary, edit = ONE_SITE[spec]
  found = values(splice(model, {spec: dictionary}, "drop"), [END, "logits"])
  (site,) = surgery.select.resolve(spec, 8)
  expected = double.oracle({site: edit})
  close(found[END][0], expected[Site("resid_post", 7)])
  change = loss(expected[Site("logits")]) - loss(
    double.oracle()[Site("logits")]
  )
  clean = loss(values(model, ["logits"])["logits"][0])
  assert loss(found["logits"][0]) - clean == pytest.approx(change, abs=1e-4)
  assert abs(change) > 1e-3


def loss(logits):
  logits = np.asarray(logits, np.float64)[:-1]
  top = logits.max(axis=1)
  total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
  return float((total - logits[np.arange(11), ROW[0, 1:]]).mean())


@pytest.mark.parametrize("error", ["keep", "freeze"])
def test_with_its_error_nothing_changes(double, error):
  """The latents are computed: an offset of zero there changes nothing too."""
  model = double.models["unrolled"]
  clean = values(model, ["logits"])["logits"]
  spliced = splice(model, {"resid_post[4]": sae(), "z[6]": sae(64, 9)}, error)
  found = values(spliced, ["logits"])["logits"]
  np.testing.assert_allclose(found, clean, rtol=0, atol=1e-5)
  parts = ["resid_post[4].error", "resid_post[4].latents"]
  touched = intervene(spliced, surgery.add(parts[1], 0.0))
  found = values(touched, [*parts, "logits"])
  np.testing.assert_allclose(found["logits"], clean, rtol=0, atol=1e-5)
  x = values(model, ["resid_post[4]"])["resid_post[4]"]
  close(found[parts[0]], x - rebuilt(sae(), x), 1e-4)
  close(found[parts[1]], sae().encode(x))


@pytest.mark.parametrize("error", ["keep", "freeze", "drop"])
def test_an_identity_changes_no_bit(error):
  """Run operation by operation: compiled, XLA rounds in other ways."""
  from gemma_scope.testing.tiny import tiny_config, tiny_gemma

  model = tiny_gemma(tiny_config(num_layers=1))
  spliced = splice(
    model, {s: pz.nn.Identity() for s in ("z[0]", "resid_post[0]")}, error
  )
  with jax.disable_jit():
    found, clean = (
      gemma.run(m, ROW, SEGMENTS)[0].unwrap("batch", "seq", "embedding")
      for m in (spliced, model)
    )
  np.testing.assert_array_equal(found, clean)


def test_an_edited_latent_moves_the_value_along_its_decoder_row(model):
  spliced = splice(model, {"resid_post[4]": sae()})
  edited = intervene(
    spliced,
    surgery.add("resid_post[4].latents[3]", 4.0, positions=[2, 5]),
  )
  clean = values(model, ["resid_post[4]"])["resid_post[4]"]
  moved = values(edited, ["resid_post[4]"])["resid_post[4]"] - clean
  expected = np.zeros_like(clean)
  expected[:, [2, 5]] = 4 * np.asarray(sae().decoder)[3]
  np.testing.assert_allclose(moved, expected, atol=1e-5)


def test_a_latent_address_of_a_dictionary_is_read(model):
  @dataclasses.dataclass(frozen=True)
  class Address:
    site: Site
    indices: tuple[int, ...] | None

  spliced = splice(model, {"resid_post[4]": sae()})
  site = Site("resid_post", 4)
  ours = surgery.set_to(Address(site, (3,)), 2.0)
  found = values(intervene(spliced, ours), ["resid_post[4].latents"])
  latents = found["resid_post[4].latents"]
  assert (latents[..., 3] == 2.0).all()
  assert not (latents[..., 4] == 2.0).all()


def gradient(model, sites):
  """Of a weighted sum of the end, at offsets of zero."""
  weight = normal(77, 1, 12, 32)
  changed = tap(offset(model, sites), sites)
  shapes = jax.eval_shape(
    lambda: gemma.run(tap(model, sites), ROW, SEGMENTS)[1]
  )
  zeros = {
    s: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes[s])
    for s in shapes
    if s in sites
  }

  def total(inputs):
    end, _ = gemma.run(changed, ROW, SEGMENTS, inputs)
    return (end.unwrap("batch", "seq", "embedding") * weight).sum()

  found = jax.jit(jax.grad(total))(zeros)
  return {str(s): np.asarray(v.unwrap(*s.info.axes)) for s, v in found.items()}


def test_gradients_pass_as_the_error_says(model):
  """keep: the model's own. freeze, drop: through the dictionary alone."""
  at, below = Site("resid_post", 4), Site("mlp_write", 4)
  plain = gradient(model, [below, at])
  found = {
    error: gradient(splice(model, {at: sae()}, error), [below, at.latents, at])
    for error in ("keep", "freeze")
  }
  close(found["keep"]["mlp_write[4]"], plain["mlp_write[4]"], 1e-4)
  x = values(model, ["resid_post[4]"], ROW)["resid_post[4]"]
  d = sae()
  active = np.asarray(d.encode(x)) > 0
  through = plain["resid_post[4]"] @ np.asarray(d.decoder).T
  for error in found:
    close(found[error]["resid_post[4].latents"], through, 1e-4)
  expected = (through * active) @ np.asarray(d.encoder).T
  close(found["freeze"]["mlp_write[4]"], expected, 1e-4)


def test_errors_of_another_run(double, model):
  """y of this run plus the error of that one, where it had the position."""
  other = np.random.default_rng(3).integers(4, 512, (1, 7)).astype(np.int32)
  ones = np.ones_like(other)
  tapped = tap(splice(model, {"resid_post[4]": sae()}), ["resid_post[4].error"])
  _, taken = jax.jit(gemma.run)(tapped, other, ones)
  spliced = splice(model, {"resid_post[4]": sae()}, "freeze", errors=taken)
  error = np.asarray(
    taken[Site("resid_post", 4).error].unwrap("batch", "seq", "embedding")
  )[0]

  def edit(value):
    kept = value - rebuilt(sae(), value)
    kept[:7] = error
    return rebuilt(sae(), value) + kept

  expected = double.oracle({Site("resid_post", 4): edit})
  close(values(spliced, [END])[END][0], expected[Site("resid_post", 7)])


@pytest.mark.parametrize("kind", ["scanned", "unrolled"])
@pytest.mark.parametrize("error", ["drop", "keep"])
def test_a_transcoder_reads_one_site_and_replaces_another(deep, kind, error):
  model, d = deep.models[kind], sae(seed=9)
  pair = ("mlp_in[8]", "mlp_write[8]")
  spliced = splice(model, {pair: d}, error)
  edited = intervene(spliced, surgery.set_to("mlp_in[8].latents[2]", 3.0))
  found = values(edited, [*pair, "mlp_in[8].latents", "resid_post[13]"])
  latents = np.asarray(d.encode(found["mlp_in[8]"]))
  changed = latents.copy()
  changed[..., 2] = 3.0
  expected = np.asarray(d.decode(jnp.asarray(changed)))
  if error == "keep":
    target = values(model, ["mlp_write[8]"])["mlp_write[8]"]
    expected = expected + target - np.asarray(d.decode(jnp.asarray(latents)))
  close(found["mlp_write[8]"], expected, 1e-4)


LAYERS_OF_CLT = (2, 7, 9)
READS = tuple(f"mlp_in[{i}]" for i in LAYERS_OF_CLT)
WRITES = tuple(f"mlp_write[{i}]" for i in LAYERS_OF_CLT)


def cross_layer():
  n = len(LAYERS_OF_CLT)
  return CrossLayer(
    normal(1, n, 32, 10), normal(2, n, n, 10, 32), normal(3, n, 32, 32)
  )


@pytest.mark.parametrize("kind", ["scanned", "unrolled"])
def test_a_cross_layer_transcoder_writes_to_later_layers(deep, kind):
  """Layer 9 gets latents of 2, 7 and 9, edited ones included."""
  model, d = deep.models[kind], cross_layer()
  spliced = splice(model, {(READS, WRITES): d}, "drop")
  edited = intervene(spliced, surgery.add("mlp_in[2].latents", 0.5, units=[1]))
  parts = [f"{r}.latents" for r in READS]
  found = values(edited, [*READS, *WRITES, *parts])
  latents = [d.encode_at(i, found[r]) for i, r in enumerate(READS)]
  latents[0] = latents[0].at[..., 1].add(0.5)
  for i, (read, write) in enumerate(zip(READS, WRITES)):
    close(found[parts[i]], latents[i], 1e-5)
    close(found[write], d.rebuild_at(i, latents, found[read]), 1e-5)


def test_a_cross_layer_transcoder_with_its_errors(deep):
  model = deep.models["scanned"]
  spliced = splice(model, {(READS, WRITES): cross_layer()}, "keep")
  touched = intervene(spliced, surgery.add("mlp_in[7].latents", 0.0))
  clean = values(model, ["logits"])["logits"]
  found = values(touched, ["logits"])["logits"]
  np.testing.assert_allclose(found, clean, atol=2e-5)


CROSSED = ("resid_post[1]", "resid_post[5]")


def crosscoder():
  return Cross(normal(4, 2, 32, 10), normal(5, 2, 10, 32))


@pytest.mark.parametrize("kind", ["scanned", "unrolled"])
def test_a_crosscoder_reads_ahead(double, kind):
  """Its latents are those of the clean pass; edits of them reach all layers."""
  model, d = double.models[kind], crosscoder()
  spliced = splice(model, {(CROSSED, CROSSED): d}, "drop")
  edited = intervene(spliced, surgery.add("resid_post[5].latents", 0.7))
  found = values(edited, [*CROSSED, "resid_post[5].latents", END])
  clean = values(model, CROSSED)
  latents = d.encode(jnp.asarray(np.stack([clean[s] for s in CROSSED]))) + 0.7
  close(found["resid_post[5].latents"], latents, 1e-4)
  for site, y in zip(CROSSED, d.decode(latents)):
    close(found[site], y, 1e-4)


def test_a_crosscoder_with_its_errors_changes_nothing(model):
  spliced = splice(model, {(CROSSED, CROSSED): crosscoder()}, "keep")
  touched = intervene(spliced, surgery.add("resid_post[5].latents", 0.0))
  clean = values(model, ["logits"])["logits"]
  for one in (spliced, touched):
    found = values(one, ["logits"])["logits"]
    np.testing.assert_allclose(found, clean, atol=2e-5)


def test_a_dictionary_that_knows_its_sites(model):
  @pz.pytree_dataclass
  class Placed(Sae):
    encoder: jax.Array
    bias: jax.Array
    decoder: jax.Array
    out_bias: jax.Array
    sites_in = (Site("mlp_in", 3),)
    sites_out = (Site("mlp_write", 3),)

  d = Placed(*jax.tree.leaves(sae()))
  for given in (d, [d], {"mlp_in[3]": d}, {("mlp_in[3]", "mlp_write[3]"): d}):
    spliced = splice(model, given, "drop")
    assert "mlp_in[3]" in spliced.stack.shared
  with pytest.raises(errors.SiteError, match="made for other sites"):
    splice(model, {"resid_post[3]": d})
  with pytest.raises(errors.SiteError, match="made for other sites"):
    splice(model, {("mlp_in[3]", "mlp_write[4]"): d})


@pytest.mark.parametrize(
  ("given", "error", "message"),
  [
    ({"resid_post[8]": sae()}, "keep", "8 layers"),
    ({"resid_post[3]": sae(31)}, "keep", "does not fit the model"),
    ({("mlp_in[3]", "z[3]"): sae()}, "keep", "does not fit the model"),
    ({"resid_post[3]": lambda v: v}, "keep", "Penzai layer or a dictionary"),
    ({"pattern[3]": sae()}, "keep", "cannot be connected"),
    ({("embed", "resid_post[3]"): sae()}, "keep", "cannot be connected"),
    (sae(), "keep", "does not know which site"),
    ({"resid_post[3]": sae()}, "forget", "no way to treat the error"),
  ],
)
def test_what_cannot_be_spliced_is_refused(model, given, error, message):
  with pytest.raises(errors.GemmaScopeError, match=message) as caught:
    splice(model, given, error)
  assert caught.value.instead


def test_errors_of_another_run_are_for_freeze(model):
  with pytest.raises(errors.ConfigError, match="with errors"):
    splice(model, {"resid_post[3]": sae()}, "keep", errors={})


def test_a_site_is_read_by_one_dictionary(model):
  spliced = splice(model, {"resid_post[3]": sae()})
  with pytest.raises(errors.SiteError, match="reads this site already"):
    splice(spliced, {"resid_post[3]": sae(seed=2)})
  splice(spliced, {"resid_post[4]": sae(seed=2)})
  with pytest.raises(errors.SiteError, match="There are 20 units"):
    intervene(spliced, surgery.ablate("resid_post[3].latents[20]"))


def test_the_spliced_model_prints_itself(model):
  shown = repr(splice(model, {"resid_post[3]": sae()}, "freeze"))
  for part in ("SpliceRead(", "SpliceWrite(", "mode='freeze'", "Sae("):
    assert part in shown
