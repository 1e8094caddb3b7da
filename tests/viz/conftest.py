"""Made-up explanations of made-up numbers, for tests of how they are shown."""

import numpy as np
from penzai import pz
import pytest

from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.analysis import explanation as parts
from gemma_scope.analysis.flow import RankedNeuron, RelevanceFlow
from gemma_scope.attribution.patching.result import PatchSweep
from gemma_scope.sites import Site
from gemma_scope.viz.explanation import Explanation
from gemma_scope.viz.patching import PatchingReport
from tests.viz.made_features import make_features

IOI = (
  "<bos>|When| Mary| and| John| went| to| the| store|,| John| gave| a| drink"
  "| to"
)
PROSE = (
  "The| keeper| of| the| light|house| wrote| down| every| ship| that| passed"
  "|,| its| flag| and| its| hour|.|\n"
)


def make_explanation(
  pieces,
  *,
  layers=18,
  heads=4,
  seed=0,
  max_bytes=1_500_000,
  target=" Mary",
  against=" John",
):
  rng = np.random.default_rng(seed)
  tokens, at = [], 0
  for piece in pieces:
    special = piece == "<bos>"
    end = at if special else at + len(piece)
    tokens.append(parts.TokenInfo(2 if special else 9, piece, at, end, special))
    at = end
  n = len(tokens)
  return Explanation(
    prompt="".join(t.text for t in tokens if not t.special),
    model="Gemma 3 270M",
    target=parts.TargetInfo(
      11,
      target,
      n - 1,
      2.93,
      0.631,
      0,
      12 if against else None,
      against,
      0.0337 if against else None,
    ),
    tokens=tuple(tokens),
    predictions=_predictions(target, against or " John"),
    attributions=_attributions(rng, tokens, target),
    random_areas=(-0.31, 0.44),
    flow=_flow(n, layers, heads),
    lens=_lens(rng, tokens, layers, target),
    components=_components(rng, layers, heads),
    attention=parts.pack_attention(
      _patterns(rng, layers, heads, n),
      kinds=["global" if i % 6 == 5 else "local" for i in range(layers)],
      max_bytes=max_bytes,
    ),
    manifest={
      "gemma_scope": "0.1.0",
      "model": {"name": "gemma-3-270m", "dtype": "float32"},
      "weights": {"format": "gguf", "sha256": "a5fd3b62" * 8},
      "device": "cpu",
      "seed": 0,
      "seconds": {"load": 2.31, "explain": 3.9},
    },
    features=make_features(tokens),
  )


def _predictions(target, against):
  found = [
    (11, target, 18.91, 0.631),
    (13, " the", 16.62, 0.064),
    (12, against, 15.98, 0.0337),
    (14, " his", 15.61, 0.0233),
    (15, " her", 15.2, 0.0154),
    (16, " a", 14.9, 0.0114),
    (17, "\n\n", 14.2, 0.0057),
    (18, " them", 12.1, 0.0007),
  ]
  return tuple(parts.Prediction(*row) for row in found)


def _attributions(rng, tokens, target):
  scores = rng.normal(0, 0.12, len(tokens))
  scores[[t.text == target for t in tokens]] += 2.1
  scores[[t.text == " John" for t in tokens]] -= 0.5
  scores[0] = -4.2
  gradient = scores * rng.uniform(0.3, 2.2, len(tokens))
  return (
    parts.TokenAttribution(
      "integrated_gradients",
      "Integrated gradients",
      "How much each token adds on the way from an empty prompt to this one.",
      scores.astype(np.float32),
      total=float(scores.sum() + 0.012),
      seconds=2.41,
      notes=("20 Gauss-Legendre steps from the mean embedding.",),
      area=1.87,
    ),
    parts.TokenAttribution(
      "input_x_gradient",
      "Input × gradient",
      "How the number reacts to a small change of each token's embedding.",
      gradient.astype(np.float32),
      seconds=0.31,
    ),
  )


def _flow(tokens, layers, heads):
  rng = np.random.default_rng(1)
  values = rng.normal(0, 0.3, (layers + 1, tokens))
  values[-1] = 0
  values[-1, -1] = 2.93
  neurons = [
    RankedNeuron(f"mlp_act[{i}]", 100 * i, 1.5 - 0.4 * i, i % tokens)
    for i in range(6)
  ]
  return RelevanceFlow(
    method="attn_lrp",
    title="AttnLRP",
    labels=("embed", *(f"resid_post[{i}]" for i in range(layers))),
    values=values.astype(np.float32),
    target=2.93,
    conserves=False,
    heads=rng.normal(0, 0.5, (layers, heads)),
    neurons=tuple(neurons),
  )


def _lens(rng, tokens, layers, target):
  n = len(tokens)
  vocabulary = [" the", ",", " was", "'s", "ing", " и", "的", " Mary", "\n"]
  depth = np.linspace(0, 1, layers + 1)[:, None]
  top = rng.integers(0, len(vocabulary), (layers + 1, n))
  texts = [[vocabulary[i] for i in row] for row in top]
  for row in range(layers - 3, layers + 1):
    texts[row][-1] = target
  target_probs = np.exp(-9 + 7 * depth + rng.normal(0, 0.5, (layers + 1, n)))
  target_probs[:, -1] = 0.631 * depth[:, 0] ** 6
  ranks = np.exp(10 * (1 - depth) + rng.normal(0, 1, (layers + 1, n)))
  ranks[layers - 3 :, -1] = 0
  return parts.LensGrid(
    labels=("embed", *(f"resid_post[{i}]" for i in range(layers))),
    positions=tuple(range(n)),
    top_ids=top,
    top_texts=tuple(map(tuple, texts)),
    top_probs=rng.beta(1 + 3 * depth, 4, (layers + 1, n)),
    target_probs=target_probs.clip(0, 1),
    target_ranks=ranks.astype(np.int64),
  )


def _components(rng, layers, heads):
  labels = ["embed"]
  for layer in range(layers):
    labels += [f"attn_write[{layer}]", f"mlp_write[{layer}]"]
  values = rng.normal(0, 0.25, len(labels))
  values[-5] += 1.9
  values[-8] += 2.93 - values.sum()
  per_head = rng.dirichlet(np.ones(heads), layers) * values[1::2, None]
  return parts.ComponentScores(
    tuple(labels), values, float(values.sum()) + 2e-4, per_head
  )


def _patterns(rng, layers, heads, n):
  scores = rng.gumbel(0, 1.6, (layers, heads, n, n)).astype(np.float32)
  scores[..., 0] += 3
  scores = np.where(np.tri(n, dtype=bool), scores, -np.inf)
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  return weights / weights.sum(-1, keepdims=True)


@pytest.fixture(scope="session")
def explanation():
  return make_explanation(IOI.split("|"))


@pytest.fixture(scope="session")
def long_explanation():
  pieces = ["<bos>", *(PROSE.split("|") * 30)[:599]]
  return make_explanation(pieces, layers=6)


@pytest.fixture
def make():
  return make_explanation


def make_patching(pieces, other, *, layers=6, noising=False):
  """A made-up sweep of one pair: stream, heads, and all positions of embed."""
  rng = np.random.default_rng(0)
  n, row = len(pieces), (1,)
  arrays = {}
  for layer in range(layers):
    stream = rng.normal(0, 0.2, (*row, n)) - 3
    stream[0, -1] += 5 * layer / layers
    arrays[Site("resid_pre", layer)] = pz.nx.wrap(stream, "batch", "seq")
    heads = rng.normal(0, 0.5, (*row, n, 4)) - 3
    arrays[Site("z", layer)] = pz.nx.wrap(heads, "batch", "seq", "heads")
  ids = np.full((1, n), 9, np.int32)
  tokens = TokenBatch(ids, np.ones_like(ids), exact=True)
  sweep = PatchSweep(
    arrays,
    source=np.asarray([2.0], np.float32),
    base=np.asarray([-3.0], np.float32),
    columns=np.arange(n)[None],
    tokens=tokens,
    source_tokens=tokens,
    pieces=(tuple(pieces),),
    source_pieces=(tuple(other),),
  )
  return PatchingReport(
    sweep,
    *("Gemma 3 270M", "".join(other[1:]), "".join(pieces[1:])),
    *(" Mary", " John", noising, {"device": "cpu"}),
  )


@pytest.fixture
def patching():
  return make_patching
