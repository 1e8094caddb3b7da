"""A made-up dashboard of a made-up latent, for tests of how it is shown."""

import numpy as np

from gemma_scope.analysis.latent_geometry import LatentGeometry
from gemma_scope.viz.dashboard import Dashboard
from tests.viz.made_features import make_info

NAME = "starter/resid_post/layer_9"


def make_dashboard(texts, *, index=4, description=None):
  """Latent 3 is dead, 4 has a description."""
  rng = np.random.default_rng(0)
  neighbours = ((7, 0.61), (9, 0.44), (11, -0.02))
  others = [make_info(rng, NAME, j, texts) for j, _ in neighbours[:2]]
  dead = index == 3
  return Dashboard(
    info=make_info(rng, NAME, index, texts, description=description),
    geometry=LatentGeometry(1.25, 0.997, 0.83, -12.5, 35.25, neighbours),
    neighbours=(*others, None),
    histogram=()
    if dead
    else ((32.0, 45.3, 900), (45.3, 64.0, 0), (64, 90.5, 7)),
    counted=250_000,
    about=f"sae of resid_post[9] ({NAME})",
    site="resid_post[9]",
    model="gemma-3-270m",
    metrics={"fvu": 0.274, "l0": 19.5},
    origin="stored with the dictionary",
    manifest={"device": "cpu"},
  )
