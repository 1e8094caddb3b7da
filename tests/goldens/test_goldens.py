"""The stored numbers are what their scripts and README say they are."""

import pathlib

import numpy as np
import pytest

from tests.goldens import shapes, sketch

FOLDER = pathlib.Path(__file__).parent
FILES = sorted(p for p in FOLDER.iterdir() if p.suffix in {".npz", ".json"})


@pytest.mark.parametrize("width", [64, 640, 2048])
def test_sketch_estimates_the_relative_error(width):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((500, width)) * rng.uniform(1, 1e4, (500, 1))
  noise = rng.standard_normal(x.shape)
  scale = 1e-4 * np.linalg.norm(x, axis=-1) / np.linalg.norm(noise, axis=-1)
  ours = sketch.sketch(x + noise * scale[:, None])
  error = sketch.relative_error(ours, sketch.sketch(x))
  assert 0.9e-4 < np.median(error) < 1.1e-4
  assert error.max() < 2e-4
  assert error.min() > 0.1e-4


def test_a_sketch_notices_one_wrong_coordinate():
  x = np.ones((1, 640))
  y = x.copy()
  y[0, 17] += 1.0
  error = sketch.relative_error(sketch.sketch(y), sketch.sketch(x))
  true = 1 / np.linalg.norm(x)
  assert 0.4 * true < error[0] < 2 * true


def test_padding_has_no_relative_error():
  zeros = np.zeros((2, 9), np.float32)
  assert np.isnan(sketch.relative_error(zeros, zeros)).all()


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_weights_of_the_shapes_are_those_of_the_goldens(name):
  with np.load(FOLDER / "hugging_face_shapes.npz") as stored:
    assert shapes.fingerprint(shapes.weights(name)) == str(
      stored[f"{name}/fingerprint"]
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_golden_is_described(path):
  assert f"`{path.name}`" in (FOLDER / "README.md").read_text()


def test_goldens_stay_small():
  assert sum(path.stat().st_size for path in FILES) < 6_000_000


@pytest.mark.parametrize("name", ["natural", "window", "padded", "ioi"])
def test_stored_vectors_match_their_sketches(name):
  with np.load(FOLDER / f"hugging_face_{name}.npz") as stored:
    rows, columns = stored["full_positions"].T
    for site in ("resid_post", "z"):
      full = sketch.sketch(stored[f"full/{site}"])
      golden = stored[f"sketch/{site}"][:, rows, columns]
      assert sketch.relative_error(full, golden).max() < 1e-6
    top = stored["top_logits"]
    assert (np.diff(top, axis=-1) <= 0).all()
    assert top[..., 0].max() < stored["logsumexp"].max() + 1e-3
