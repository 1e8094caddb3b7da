"""One step: against a plain oracle, side by side against alone, on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gemma_scope.training import losses, options
from gemma_scope.training.parameters import layout_of
from gemma_scope.training.placement import place
from gemma_scope.training.scaling import measure
from gemma_scope.training.state import begin
from gemma_scope.training.step import gather, make_step
from tests.training import runs

WIDTHS = dict.fromkeys((*runs.IN, *runs.OUT), runs.D)


def trained(config, steps=4, mesh=None):
  """State and metrics after some steps on the shared rows."""
  source = runs.rows()
  state = place(begin(config, measure(source, config)), mesh)
  step = make_step(config, WIDTHS)
  metrics = ()
  for _ in range(steps):
    state, metrics = step(state, next(source))
  return state, metrics


def test_rows_of_members_are_scaled():
  group = runs.group("clt")
  config = runs.run(group)
  source = runs.rows()
  state = begin(config, measure(source, config))
  rows = next(source)
  layout = layout_of(group, runs.D, runs.D)
  batch = gather(state.groups[0], rows, group, layout)
  scale = state.groups[0].scale_out[0]
  expected = np.concatenate(
    [np.asarray(rows[s]) * float(scale[i]) for i, s in enumerate(runs.OUT)], 1
  )
  np.testing.assert_allclose(batch.y[0], expected, rtol=1e-6)
  assert [x.shape for x in batch.xs] == 3 * [(1, 64, runs.D)]


@pytest.mark.parametrize("activation", ["jump_relu", "gated", "batch_top_k"])
def test_a_step_is_compiled_once(activation):
  """What a step gives has the very types of what it takes."""
  config = runs.run(runs.group(activation=activation))
  source = runs.rows()
  state = begin(config, measure(source, config))
  before = [jax.typeof(leaf) for leaf in jax.tree.leaves(state)]
  state, _ = make_step(config, WIDTHS)(state, next(source))
  assert [jax.typeof(leaf) for leaf in jax.tree.leaves(state)] == before


def test_a_step_against_adam_by_hand():
  """Projection, Adam, warm-up and norms, on the gradients of the loss."""
  group = runs.group("transcoder", form={"affine_skip": True})
  config = runs.run(group)
  source = runs.rows()
  state = begin(config, measure(source, config))
  before = jax.tree.map(lambda a: np.asarray(a[0]), state.groups[0].params)
  rows = next(source)
  layout = layout_of(group, runs.D, runs.D)
  batch = jax.tree.map(
    lambda a: a[0], gather(state.groups[0], rows, group, layout)
  )
  numbers = losses.Numbers(jnp.float32(3), jnp.float32(0.03))
  dead = (jnp.zeros(runs.WIDTH, jnp.int32),)
  grads = jax.grad(
    lambda p: losses.loss(p, batch, numbers, dead, (group, layout, "float32"))[
      0
    ]
  )(before)
  w = before["parts"][0]["w_dec"]
  g = np.asarray(grads["parts"][0]["w_dec"])
  grads["parts"][0]["w_dec"] = g - (g * w).sum(1, keepdims=True) * w
  adam = optax.adam(1e-3, 0.0, 0.999, eps=1e-8)  # a tenth of 1e-2: warm-up
  updates, _ = adam.update(grads, adam.init(before))
  expected = optax.apply_updates(before, updates)
  moved = expected["parts"][0]["w_dec"]
  expected["parts"][0]["w_dec"] = moved / np.linalg.norm(
    moved, axis=1, keepdims=True
  )
  after, metrics = make_step(config, WIDTHS)(state, rows)
  for a, b in zip(
    jax.tree.leaves(after.groups[0].params), jax.tree.leaves(expected)
  ):
    np.testing.assert_allclose(a[0], b, atol=2e-6)
  assert metrics[0]["learning_rate"][0] == pytest.approx(1e-3)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("activation", ["jump_relu", "batch_top_k", "gated"])
def test_side_by_side_as_alone(activation, backend, monkeypatch):
  """Members that differ in site, L0, learning rate and seed, as both kinds of
  machine train them.
  """
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  members = [
    runs.member(name="a"),
    runs.replace(runs.member(name="b", l0=5), sites_in=runs.IN[1:2]),
    runs.member(name="c", learning_rate=2e-3, seed=3),
    runs.member(name="d", weight=0.2),
  ]
  form = {"prefixes": (8,)}
  together, seen = trained(
    runs.run(runs.group("sae", activation, members, form=form))
  )
  for i in (2,):
    alone, own = trained(
      runs.run(runs.group("sae", activation, members[i : i + 1], form=form))
    )
    for a, b in zip(
      jax.tree.leaves(together.groups[0].params),
      jax.tree.leaves(alone.groups[0].params),
    ):
      # XLA adds up a bias's gradient in another order for one member.
      np.testing.assert_allclose(a[i], b[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(seen[0]["fvu"][i], own[0]["fvu"][0], rtol=1e-6)


@pytest.mark.parametrize(
  ("kind", "activation"),
  [("sae", "jump_relu"), ("sae", "top_k"), ("clt", "batch_top_k")],
)
def test_latents_sharded_over_eight_devices(kind, activation):
  mesh = jax.make_mesh((8,), ("model",))
  aux = {"aux_k": 4, "aux_pool": 8} if activation == "top_k" else {}
  revival = options.Revival(dead_after=100, **aux)
  form = {"prefixes": (8,)} if activation == "jump_relu" else {}
  config = runs.run(runs.group(kind, activation, revival=revival, form=form))
  (one, seen), (eight, shared) = trained(config), trained(config, mesh=mesh)
  w_enc = eight.groups[0].params["parts"][0]["w_enc"]
  assert w_enc.sharding.shard_shape(w_enc.shape)[2] == runs.WIDTH // 8
  for a, b in zip(seen, shared):
    np.testing.assert_array_equal(a["l0"], b["l0"])
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "tensorfloat32"])
def test_other_precisions_are_near(precision):
  config = runs.run()
  rough = runs.replace(config, precision=precision)
  (_, a), (_, b) = trained(config), trained(rough)
  np.testing.assert_allclose(a[0]["mse"], b[0]["mse"], rtol=0.05)


def test_dead_latents_are_counted_in_rows():
  group = runs.group("sae", "top_k", revival=options.Revival(dead_after=100))
  state, metrics = trained(runs.run(group), steps=3)
  since = np.asarray(state.groups[0].since[0])
  assert set(np.unique(since)) <= {0, 64, 128, 192}
  assert metrics[0]["dead"][0] == pytest.approx((since > 100).mean())


def test_the_threshold_of_batch_top_k_is_a_mean_of_smallest_values():
  config = runs.run(runs.group("sae", "batch_top_k"))
  first, _ = trained(config, steps=1)
  second, _ = trained(config, steps=2)
  a, b = (float(s.groups[0].threshold[0]) for s in (first, second))
  assert a > 0
  assert abs(b - a) < 0.01 * a
  jump, _ = trained(runs.run(), steps=1)
  assert jump.groups[0].threshold[0] == -1


def test_clipped_gradients():
  optimiser = options.Optimiser(
    warmup_steps=0, clip_norm=1e-12, unit_norm=False, eps=1.0
  )
  config = runs.run(runs.group(optimiser=optimiser))
  source = runs.rows()
  state = begin(config, measure(source, config))
  before = np.asarray(state.groups[0].params["parts"][0]["w_enc"])
  after, _ = make_step(config, WIDTHS)(state, next(source))
  found = after.groups[0].params["parts"][0]["w_enc"]
  np.testing.assert_allclose(found, before, atol=1e-7)


def test_an_outlier_batch_moves_weights_little_farther_than_others():
  """A batch a hundred times as large, after some usual ones."""
  moves = []
  for ratio in (0.0, 1.0):
    optimiser = options.Optimiser(warmup_steps=0, clip_ratio=ratio)
    config = runs.run(runs.group(optimiser=optimiser))
    source = runs.rows()
    state = begin(config, measure(source, config))
    step = make_step(config, WIDTHS)
    usual = 0.0
    for _ in range(8):
      before = np.array(state.groups[0].params["parts"][0]["w_enc"])
      state, _ = step(state, next(source))
      after = np.array(state.groups[0].params["parts"][0]["w_enc"])
      usual = np.abs(after - before).mean()
    rows = {site: 100 * v for site, v in next(source).items()}
    state, _ = step(state, rows)
    last = np.asarray(state.groups[0].params["parts"][0]["w_enc"])
    moves.append(np.abs(last - after).mean() / usual)
  assert moves[0] > 5
  assert moves[1] < 2


def test_thresholds_may_learn_slower():
  ends = []
  for share in (1.0, 0.25):
    optimiser = options.Optimiser(warmup_steps=0, threshold_rate=share)
    config = runs.run(runs.group(optimiser=optimiser))
    state, _ = trained(config, steps=1)
    part = state.groups[0].params["parts"][0]
    ends.append((part["threshold"] - 0.05, part["w_enc"]))
  np.testing.assert_allclose(ends[1][0], 0.25 * ends[0][0], atol=1e-6)
  np.testing.assert_array_equal(ends[0][1], ends[1][1])


def test_the_first_bad_step_is_remembered_with_its_terms():
  config = runs.run(
    runs.group(members=[runs.member(), runs.member("sae", name="bad")])
  )
  source = runs.rows()
  state = begin(config, measure(source, config))
  step = make_step(config, WIDTHS)
  state, metrics = step(state, next(source))
  assert list(metrics[0]["alarm_step"]) == [-1, -1]
  group = state.groups[0]
  broken = group.params | {"b_dec": group.params["b_dec"].at[1, 0].set(jnp.nan)}
  state = state._replace(groups=(group._replace(params=broken),))
  for _ in range(2):
    state, metrics = step(state, next(source))
  assert list(metrics[0]["alarm_step"]) == [-1, 1]
  np.testing.assert_array_equal(
    metrics[0]["alarm_terms"], [[False] * 3, [True, False, True]]
  )
