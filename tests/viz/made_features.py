"""Made-up latents of a made-up prompt, for tests of how they are shown."""

import numpy as np

from gemma_scope.analysis.latent_info import ExampleText, LatentInfo
from gemma_scope.analysis.mlp_parts import MlpParts
from gemma_scope.analysis.prompt_latents import NOTHING, ActiveLatents
from gemma_scope.viz.features import Features

SAES = ("starter/resid_post/layer_9", "starter/resid_post/layer_12")
TRANSCODERS = tuple(f"starter/transcoder/layer_{i}" for i in range(3))
SHOWN = 5


def make_features(tokens, *, seed=0, relevance=True, fvu=0.31):
  """Two SAEs and three transcoders; `tokens` are those of an explanation."""
  rng = np.random.default_rng(seed)
  counted = np.asarray([not t.special for t in tokens])
  first = max(0, len(tokens) - 128)
  layers = tuple(
    make_layer(rng, name, counted[first:], relevance, fvu) for name in SAES
  )
  mlps = tuple(_mlp(rng, i) for i in range(len(TRANSCODERS)))
  used = {(x.dictionary, int(j)) for x in layers for j in np.unique(x.indices)}
  used |= {(x.dictionary, j) for x in mlps for j, *_ in x.strongest}
  texts = [t.text for t in tokens[1:13]]
  infos = [
    make_info(rng, name, j, texts) for name, j in sorted(used) if j != NOTHING
  ]
  return Features(
    suite="starter suite of Gemma 3 270M",
    title="AttnLRP" if relevance else None,
    first=first,
    layers=layers,
    mlps=mlps,
    infos=tuple(infos),
  )


def make_layer(rng, name, counted, relevance, fvu):
  n = len(counted)
  indices = np.stack([rng.choice(40, SHOWN, replace=False) for _ in range(n)])
  activations = -np.sort(-rng.gamma(1, 300, (n, SHOWN)), axis=1)
  indices = np.where(counted[:, None], indices, NOTHING)
  scores = rng.normal(0, 0.4, (n, SHOWN)) * counted[:, None]
  totals = scores.sum(1) + rng.normal(0, 0.2, n)
  return ActiveLatents(
    dictionary=name,
    site=f"resid_post[{name.rpartition('_')[2]}]",
    indices=indices.astype(np.int32),
    activations=(activations * counted[:, None]).astype(np.float32),
    relevance=scores.astype(np.float32) if relevance else None,
    counts=np.where(counted, 17, 0),
    counted=counted,
    totals=totals if relevance else None,
    explained=scores.sum(1) if relevance else None,
    bias=0.05 * counted if relevance else None,
    fvu=fvu,
    l0=17.0,
    held_out={"fvu": 0.274, "l0": 19.5},
  )


def _mlp(rng, layer):
  found = tuple(
    (int(j), 200.0 - 10 * i, float(rng.normal()))
    for i, j in enumerate(rng.choice(30, 4, replace=False))
  )
  parts = rng.normal(size=4)
  name, label = TRANSCODERS[layer], f"mlp_write[{layer}]"
  return MlpParts(name, label, float(parts.sum()), *parts.tolist(), 9, found)


def make_info(rng, name, index, texts, *, description=None):
  """Knows nothing of latent 3, and describes latent 4."""
  effects = tuple((text, 0.02 - 0.001 * i) for i, text in enumerate(texts[:8]))
  examples = tuple(
    ExampleText(
      tuple(texts),
      tuple(
        np.round(
          rng.gamma(1, 9, len(texts)) * (rng.random(len(texts)) < 0.4), 2
        )
      ),
      len(texts) // 2,
    )
    for _ in range(0 if index == 3 else 3)
  )
  return LatentInfo(
    dictionary=name,
    index=index,
    favoured=effects,
    disfavoured=tuple((text, -value) for text, value in effects),
    examples=examples,
    frequency=0.0 if index == 3 else 0.004,
    maximum=0.0 if index == 3 else 812.5,
    description=description or ("names of people" if index == 4 else None),
  )
