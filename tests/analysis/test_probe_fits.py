import numpy as np
import pytest
import scipy.optimize

from gemma_scope.analysis import probe_fits


def data(rows=60, width=7, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.standard_normal((rows, width)) * rng.uniform(0.1, 9, width) + 3
  labels = x[:, 0] + x[:, 1] + rng.standard_normal(rows) > 6
  return x, labels


def test_mean_difference_by_hand():
  x = np.asarray([[2.0, 0.0], [4.0, 2.0], [0.0, 1.0], [2.0, 1.0]])
  labels = np.asarray([True, True, False, False])
  direction, threshold = probe_fits.mean_difference(x, labels)
  np.testing.assert_allclose(direction, [1, 0], atol=1e-12)
  assert threshold == 2


@pytest.mark.parametrize("width", [3, 200])  # fewer and more than texts
@pytest.mark.parametrize("l2", [1e-3, 0.3])
def test_logistic_is_the_minimum_of_its_loss(width, l2):
  x, labels = data(width=width)
  centre, scale = x.mean(0), x.std(0)
  z, sign = (x - centre) / scale, np.where(labels, 1.0, -1.0)

  def loss(theta):
    w, b = theta[:-1], theta[-1]
    margin = sign * (z @ w + b)
    p = 1 / (1 + np.exp(margin))
    gradient = -(z * (sign * p)[:, None]).mean(0) + l2 * w
    value = np.logaddexp(0, -margin).mean() + l2 / 2 * w @ w
    return value, np.append(gradient, -(sign * p).mean())

  found = scipy.optimize.minimize(
    loss,
    np.zeros(width + 1),
    jac=True,
    method="L-BFGS-B",
    options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000},
  )
  w = found.x[:-1] / scale
  direction, threshold = probe_fits.logistic(x, labels, l2)
  np.testing.assert_allclose(direction, w / np.linalg.norm(w), atol=2e-5)
  expected = (w @ centre - found.x[-1]) / np.linalg.norm(w)
  np.testing.assert_allclose(threshold, expected, rtol=1e-4)


def test_logistic_of_separable_texts_and_a_constant_feature():
  x, labels = data()
  x[:, 3] = 5.0
  x[labels, 0] += 100
  direction, threshold = probe_fits.logistic(x, labels, 1e-2)
  assert direction[3] == 0
  np.testing.assert_allclose(np.linalg.norm(direction), 1)
  assert ((x @ direction > threshold) == labels).all()


def test_the_same_features_give_a_fit_of_no_direction():
  x, labels = np.ones((6, 3)), np.asarray([True, False] * 3)
  for fit in probe_fits.FITS.values():
    direction, _ = fit(x, labels, 0.1)
    assert not direction.any()


def test_auc_counts_pairs():
  scores = np.asarray([3.0, 1.0, 2.0, 1.0])
  labels = np.asarray([True, True, False, False])
  # Pairs: 3>2, 3>1, 1<2, 1=1.
  assert probe_fits.auc(scores, labels) == (1 + 1 + 0 + 0.5) / 4


def test_auc_interval_covers_and_narrows():
  rng = np.random.default_rng(0)

  def interval(count):
    labels = np.arange(count) % 2 == 0
    scores = rng.standard_normal(count) + labels
    found = probe_fits.auc(scores, labels)
    low, high = probe_fits.auc_interval(scores, labels, 300, seed=0)
    assert low < found < high
    return high - low

  # Standard errors go with one over the root of the count.
  assert 2 < interval(40) / interval(640) < 8
