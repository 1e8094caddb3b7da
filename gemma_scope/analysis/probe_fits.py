"""How a linear probe is fitted and judged, on plain float64 arrays.

The logistic fit standardises features (mean 0, variance 1; constant ones are
left out) and gives its direction back in the site's own coordinates. It is
solved in the span of the texts, where it is small and strictly
convex, so that Newton's method finds its one solution.
"""

from collections.abc import Callable, Mapping
import dataclasses

from jaxtyping import Bool, Float
import numpy as np

NEWTON_STEPS = 100
TOLERANCE = 1e-10  # of the gradient's largest element

Fit = Callable[[np.ndarray, np.ndarray, float], tuple[np.ndarray, float]]


def mean_difference(
  x: Float[np.ndarray, "texts features"],
  labels: Bool[np.ndarray, " texts"],
  l2: float = 0.0,
) -> tuple[Float[np.ndarray, " features"], float]:
  """The direction from the mean of one label to that of the other.

  Args:
    x: Features, in the site's own units: nothing is standardised here, so that
      the direction is the one that activations move along.
    labels: Which texts are positive.
    l2: Not used.

  Returns:
    The unit direction, and the threshold halfway between the means.
  """
  del l2
  above, below = x[labels].mean(axis=0), x[~labels].mean(axis=0)
  direction = _unit(above - below)
  return direction, float((above + below) @ direction / 2)


def logistic(
  x: Float[np.ndarray, "texts features"],
  labels: Bool[np.ndarray, " texts"],
  l2: float,
) -> tuple[Float[np.ndarray, " features"], float]:
  """Logistic regression with an L2 penalty, by Newton's method.

  Args:
    x: Features.
    labels: Which texts are positive.
    l2: Strength of the penalty on standardised weights, per text.

  Returns:
    The unit direction in the coordinates of `x`, and the threshold where both
    labels are equally probable.
  """
  return span(x).logistic(labels, l2)


@dataclasses.dataclass(frozen=True, eq=False)
class Span:
  """Standardised features in the span of the texts, for any labels of these.

  Attributes:
    centre: Mean of each feature.
    scale: Its deviation; 1 where it is constant.
    constant: Which features are.
    basis: Of the span, orthonormal, in standardised features.
    inside: The texts in that basis.
  """

  centre: Float[np.ndarray, " features"]
  scale: Float[np.ndarray, " features"]
  constant: Bool[np.ndarray, " features"]
  basis: Float[np.ndarray, "features rank"]
  inside: Float[np.ndarray, "texts rank"]

  def logistic(
    self, labels: Bool[np.ndarray, " texts"], l2: float
  ) -> tuple[Float[np.ndarray, " features"], float]:
    """What the function `logistic` returns for these labels."""
    small, bias = newton(self.inside, labels, l2)
    weights = np.where(self.constant, 0.0, self.basis @ small) / self.scale
    length = np.linalg.norm(weights)
    if length == 0:
      return weights, 0.0
    return weights / length, float((weights @ self.centre - bias) / length)


def span(x: Float[np.ndarray, "texts features"]) -> Span:
  """The span of some texts: most of the work where many labels are fitted."""
  centre, scale = x.mean(axis=0), x.std(axis=0)
  constant = scale < 1e-12 * (np.abs(centre) + 1e-300)
  safe = np.where(constant, 1.0, scale)
  z = np.where(constant, 0.0, (x - centre) / safe)
  # The solution lies in the span of the texts: weights = basis @ small.
  _, sizes, basis = np.linalg.svd(z, full_matrices=False)
  basis = basis[sizes > 1e-10 * max(sizes.max(), 1e-300)].T
  return Span(centre, safe, constant, basis, z @ basis)


def newton(
  z: Float[np.ndarray, "texts features"],
  labels: Bool[np.ndarray, " texts"],
  l2: float,
) -> tuple[Float[np.ndarray, " features"], float]:
  """Weights and bias that minimise the penalised mean logistic loss.

  Steps are halved until the loss falls. The bias has no penalty.
  """
  sign = np.where(labels, 1.0, -1.0)
  design = np.concatenate([z, np.ones((len(z), 1))], axis=1)
  penalty = np.full(design.shape[1], l2)
  penalty[-1] = 0.0
  theta = np.zeros(design.shape[1])

  def loss(t: np.ndarray) -> float:
    fit = np.logaddexp(0.0, -sign * (design @ t)).mean()
    return float(fit + (penalty * t * t).sum() / 2)

  for _ in range(NEWTON_STEPS):
    p = 1 / (1 + np.exp(-np.clip(design @ theta, -500, 500)))
    gradient = design.T @ (p - labels) / len(z) + penalty * theta
    if np.abs(gradient).max() < TOLERANCE:
      break
    curvature = (design.T * (p * (1 - p))) @ design / len(z)
    curvature += np.diag(penalty + 1e-12)
    step, now = np.linalg.solve(curvature, gradient), loss(theta)
    size = 1.0
    while loss(theta - size * step) > now and size > 1e-8:
      size /= 2
    theta = theta - size * step
  return theta[:-1], float(theta[-1])


def auc(
  scores: Float[np.ndarray, " texts"], labels: Bool[np.ndarray, " texts"]
) -> float:
  """How often a positive text scores above a negative one; ties count half."""
  above, below = scores[labels], scores[~labels]
  higher = (above[:, None] > below[None]).mean()
  return float(higher + (above[:, None] == below[None]).mean() / 2)


def auc_interval(
  scores: Float[np.ndarray, " texts"],
  labels: Bool[np.ndarray, " texts"],
  resamples: int,
  seed: int,
) -> tuple[float, float]:
  """95 % bootstrap interval of the AUC, both labels resampled apart."""
  rng = np.random.default_rng([seed, 2])
  above, below = scores[labels], scores[~labels]
  wins = (above[:, None] > below[None]) + (above[:, None] == below[None]) / 2
  found = []
  for _ in range(resamples):
    rows = rng.integers(len(above), size=len(above))
    columns = rng.integers(len(below), size=len(below))
    found.append(wins[rows][:, columns].mean())
  low, high = np.quantile(found, [0.025, 0.975])
  return float(low), float(high)


def _unit(vector: np.ndarray) -> np.ndarray:
  length = np.linalg.norm(vector)
  return vector / length if length else vector


FITS: Mapping[str, Fit] = {
  "mean_difference": mean_difference,
  "logistic": logistic,
}
