"""Sketches: a few numbers per vector that bound the distance of two tensors.

Whole activations are too large for the repository. For every vector x (one
site, layer, token) the goldens keep |x| and its products with DIRECTIONS fixed
Gaussian directions g_k ~ N(0, I). For two vectors x, y of the same width

    E_g[(g . (x - y))^2] = |x - y|^2

so the root mean square of the differences of the products, divided by |x|,
estimates the relative error of y at that token. With 8 directions the estimate
of one vector is within a factor 0.45 .. 1.6 of the truth in 19 of 20 cases; the
largest of tens of thousands of vectors is overestimated by about two. Bound
the largest estimate by twice the tolerance, and the median by the tolerance.

Needs NumPy alone: the scripts that make goldens and the tests that read them
both import this file.
"""

import numpy as np

DIRECTIONS = 8
SEED = 20250312


def directions(width: int) -> np.ndarray:
  """The fixed directions for vectors of `width`: [width, DIRECTIONS] float64.

  Args:
    width: The last axis of the tensors to be sketched.
  """
  rng = np.random.default_rng([SEED, width])
  return rng.standard_normal((width, DIRECTIONS))


def sketch(x: np.ndarray) -> np.ndarray:
  """Reduces [..., width] to [..., 1 + DIRECTIONS] float32: norm, products."""
  exact = np.asarray(x, np.float64)
  norm = np.linalg.norm(exact, axis=-1, keepdims=True)
  products = exact @ directions(exact.shape[-1])
  return np.concatenate([norm, products], -1).astype(np.float32)


def relative_error(ours: np.ndarray, golden: np.ndarray) -> np.ndarray:
  """Estimates |ours - golden| / |golden| for every vector.

  Args:
    ours: Sketches [..., 1 + DIRECTIONS], as `sketch` returns them.
    golden: The stored sketches, of the same shape.

  Returns:
    [...] float64; nan where the golden vector is zero (padding).
  """
  difference = ours[..., 1:].astype(np.float64) - golden[..., 1:]
  norm = golden[..., 0].astype(np.float64)
  distance = np.sqrt(np.mean(difference**2, -1))
  return np.divide(
    distance, norm, out=np.full_like(norm, np.nan), where=norm > 0
  )
