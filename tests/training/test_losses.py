"""Every term of the loss against its formula, gradients against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.training import losses, options, parameters
from tests.training import runs

ROWS = 24


def case(kind="sae", activation="relu", **fields):
  """(params, batch, numbers, dead, setting) of one random member."""
  group = runs.group(kind, activation, **fields)
  layout = parameters.layout_of(group, runs.D, runs.D)
  keys = jax.random.split(jax.random.key(0), 4)
  ends = 0.1 * jax.random.normal(keys[0], (layout.sites * runs.D,))
  params = parameters.init(keys[1], group, layout, ends, -ends)
  noise = jax.random.normal
  x = noise(keys[2], (ROWS, layout.sites * runs.D))
  xs = (x,) if not layout.layered else tuple(jnp.split(x, layout.sites, axis=1))
  y = x if kind in ("sae", "crosscoder") else noise(keys[3], x.shape)
  numbers = losses.Numbers(jnp.float32(3), jnp.float32(0.2))
  dead = tuple(jnp.zeros(runs.WIDTH, jnp.int32) for _ in range(layout.parts))
  return params, losses.Batch(xs, y), numbers, dead, (group, layout, "float32")


def terms(given):
  total, seen = losses.loss(*given)
  found = {name: float(v) for name, v in seen.terms.items()}
  assert float(total) == pytest.approx(sum(found.values()), rel=1e-6)
  return found, seen


def latents(given):
  """Latents of every part, by the formulas and in float64."""
  params, batch, _, _, _ = given
  found = []
  for part, x in zip(params["parts"], batch.xs):
    part = {n: np.asarray(v, np.float64) for n, v in part.items()}
    z = (np.asarray(x) - part["b_in"]) @ part["w_enc"] + part["b_enc"]
    least = part.get("threshold", np.zeros(z.shape[1]))
    found.append(np.where(z > least, np.maximum(z, 0), 0))
  return found


def rebuilt(given, width=None):
  """What the first latents of every part rebuild."""
  params, batch, _, _, (_, layout, _) = given
  y = np.tile(np.asarray(params["b_dec"], np.float64), (ROWS, 1))
  for p, (part, f) in enumerate(zip(params["parts"], latents(given))):
    first = layout.offset(p)
    y[:, first:] += f[:, :width] @ np.asarray(part["w_dec"])[:width]
    if "skip" in part:
      own = slice(first, first + layout.d_out)
      y[:, own] += np.asarray(batch.xs[p]) @ np.asarray(part["skip"])
  return y


@pytest.mark.parametrize("kind", list(runs.ENDS))
@pytest.mark.parametrize("prefixes", [(), (4, 16)])
def test_reconstruction(kind, prefixes):
  skip = kind in ("transcoder", "clt")
  form = {"prefixes": prefixes, "affine_skip": skip}
  given = case(kind, "jump_relu", form=form)
  for part in given[0]["parts"]:
    if skip:
      part["skip"] = part["skip"] + 0.1 * np.eye(runs.D)
  found, seen = terms(given)
  y = np.asarray(given[1].y, np.float64)
  errors = [
    np.square(y - rebuilt(given, w)).sum(1).mean()
    for w in (*prefixes, runs.WIDTH)
  ]
  assert found["mse"] == pytest.approx(np.mean(errors), rel=1e-5)
  variance = np.square(y - y.mean(0)).sum()
  assert seen.fvu == pytest.approx(errors[-1] * ROWS / variance, rel=1e-5)
  counts = sum((f > 0).sum() for f in latents(given))
  assert seen.l0 == pytest.approx(counts / ROWS)


@pytest.mark.parametrize("l0_of", ["batch", "row"])
def test_quadratic_l0(l0_of):
  sparsity = options.Sparsity(l0_of=l0_of, threshold=0.3, bandwidth=0.1)
  given = case("clt", "jump_relu", sparsity=sparsity)
  per_row = sum((f > 0).sum(1) for f in latents(given))
  l0 = per_row.mean() if l0_of == "batch" else per_row
  expected = 0.2 * (2 / 3) * np.mean((l0 - 3) ** 2)
  assert terms(given)[0]["sparsity"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("l0_of", ["batch", "row"])
def test_gradient_of_the_quadratic_l0_reaches_thresholds_alone(l0_of):
  sparsity = options.Sparsity(l0_of=l0_of, threshold=0.3, bandwidth=0.1)
  params, batch, numbers, dead, setting = case(
    "sae", "jump_relu", sparsity=sparsity
  )

  def whole(params, weight):
    given = numbers._replace(weight=weight)
    return losses.loss(params, batch, given, dead, setting)[0]

  with_it = jax.grad(whole)(params, jnp.float32(0.2))
  without = jax.grad(whole)(params, jnp.float32(0))
  slope = jax.tree.map(lambda a, b: np.asarray(a - b), with_it, without)
  found = slope["parts"][0].pop("threshold")
  for leaf in jax.tree.leaves(slope):
    np.testing.assert_allclose(leaf, 0, atol=1e-6)
  part = params["parts"][0]
  z = np.asarray((batch.xs[0] - part["b_in"][None]) @ part["w_enc"])
  near = np.abs(z - 0.3) < 0.05
  per_row = (z > 0.3).sum(1)
  l0 = np.full(ROWS, per_row.mean()) if l0_of == "batch" else per_row
  coefficient = 0.2 * (4 / 3) * (l0 - 3) / ROWS
  expected = -(coefficient[:, None] * near / 0.1).sum(0)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["sae", "crosscoder", "clt"])
@pytest.mark.parametrize("penalty", ["l1", "tanh"])
def test_l1_and_tanh_weigh_latents_by_decoder_norms(kind, penalty):
  sparsity = options.Sparsity(penalty=penalty, tanh_scale=2.0)
  optimiser = options.Optimiser(unit_norm=False)
  given = case(kind, sparsity=sparsity, optimiser=optimiser)
  for i, part in enumerate(given[0]["parts"]):
    part["w_dec"] = part["w_dec"] * (1.5 + i)
  total = 0.0
  for part, f in zip(given[0]["parts"], latents(given)):
    w = np.asarray(part["w_dec"]).reshape(runs.WIDTH, -1, runs.D)
    f = f * np.linalg.norm(w, axis=2).sum(1)
    total += (np.tanh(2 * f) if penalty == "tanh" else f).sum(1).mean()
  assert terms(given)[0]["sparsity"] == pytest.approx(0.2 * total, rel=1e-5)


def test_frequency():
  sparsity = options.Sparsity(
    threshold=0.1, frequency_weight=0.7, frequency_limit=0.25
  )
  given = case("sae", "jump_relu", sparsity=sparsity)
  (f,) = latents(given)
  over = np.maximum((f > 0).mean(0) - 0.25, 0)
  expected = 0.7 * np.square(over).sum() / 0.25
  assert expected > 0
  assert terms(given)[0]["frequency"] == pytest.approx(expected, rel=1e-5)


def test_gate():
  given = case("sae", "gated")
  params, batch, *_ = given
  found, _ = terms(given)
  part = params["parts"][0]
  z = np.asarray((batch.xs[0] - part["b_in"][None]) @ part["w_enc"])
  gate = np.maximum(z + np.asarray(part["b_enc"]), 0)
  y = gate @ np.asarray(part["w_dec"]) + np.asarray(params["b_dec"])
  expected = np.square(np.asarray(batch.y) - y).sum(1).mean()
  assert found["gate"] == pytest.approx(expected, rel=1e-5)
  assert found["sparsity"] == pytest.approx(0.2 * gate.sum(1).mean(), rel=1e-5)


@pytest.mark.parametrize(
  ("kind", "activation", "held"),
  [
    ("sae", "relu", ()),
    ("transcoder", "relu", ()),
    ("crosscoder", "relu", ()),
    ("clt", "relu", ()),
    # The decoder that judges the gate is held constant.
    ("sae", "gated", ("w_dec", "b_dec")),
    # What moves the choice of latents makes the loss jump.
    ("sae", "top_k", ("w_enc", "b_enc", "b_in")),
    ("clt", "batch_top_k", ("w_enc", "b_enc", "b_in")),
  ],
)
def test_gradients_are_those_of_finite_differences(kind, activation, held):
  """Along a random direction of every array, where the loss is smooth."""
  skip = kind in ("transcoder", "clt")
  form = {"affine_skip": skip, "prefixes": (8,)}
  params, *rest = case(kind, activation, form=form)

  def value(params):
    return losses.loss(params, *rest)[0]

  grads = jax.tree.leaves(jax.grad(value)(params))
  leaves = jax.tree_util.tree_leaves_with_path(params)
  for i, (path, leaf) in enumerate(leaves):
    if path[-1].key in held:
      continue
    away = jax.random.normal(jax.random.key(i), leaf.shape)
    slope = float((grads[i] * away).sum())
    ends = []
    for size in (3e-4, -3e-4):
      moved = [leaf + size * away if j == i else v for j, v in _values(leaves)]
      ends.append(float(value(jax.tree.structure(params).unflatten(moved))))
    expected = (ends[0] - ends[1]) / 6e-4
    assert slope == pytest.approx(expected, rel=0.03, abs=0.06), path


def _values(leaves):
  return [(j, leaf) for j, (_, leaf) in enumerate(leaves)]


def test_far_rows_count_less():
  form = {"prefixes": (8,)}
  params, batch, *rest = case("transcoder", "relu", form=form)
  y = batch.y.at[3].mul(50)  # far from all others
  _, plain = losses.loss(params, batch._replace(y=y), *rest)
  group, *other = rest[-1]
  setting = (runs.replace(group, row_limit=4.0), *other)
  _, seen = losses.loss(params, batch._replace(y=y), *rest[:-1], setting)
  y = np.asarray(y, np.float64)
  distance = np.linalg.norm(y - y.mean(0), axis=1)
  weights = np.minimum(1, 16 / np.square(distance))
  assert weights[3] < 0.01
  given = (params, batch, *rest)
  errors = [
    (weights * np.square(y - rebuilt(given, w)).sum(1)).mean()
    for w in (8, runs.WIDTH)
  ]
  assert seen.terms["mse"] == pytest.approx(np.mean(errors), rel=1e-5)
  assert seen.fvu == plain.fvu  # which counts every row whole


def test_names_of_terms():
  group = runs.group("sae", "gated")
  assert losses.term_names(group) == ("mse", "sparsity", "gate")
  aux = runs.group("sae", "top_k", revival=options.Revival(aux_k=4, aux_pool=8))
  assert losses.term_names(aux) == ("mse", "aux")
