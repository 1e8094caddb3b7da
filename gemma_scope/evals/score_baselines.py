"""Scores that know nothing of the model, to hold every method against.

random     any order, by several seeds; measured as their mean
recency    later tokens first: causal models lean on what is near
length     longer tokens first: content words are longer than others
"""

import numpy as np

from gemma_scope.evals.groups import Group
from gemma_scope.model.tokenizer import Tokenizer

RANDOM, RECENCY, LENGTH = "random", "recency", "length"
NAMES = (RANDOM, RECENCY, LENGTH)


def random_scores(group: Group, seed: int) -> np.ndarray:
  """[prompts, width] uniform numbers, each prompt's own whatever its group."""
  return np.stack(
    [
      np.random.default_rng((seed, int(p))).random(group.width)
      for p in group.index
    ]
  )


def recency_scores(group: Group) -> np.ndarray:
  """[prompts, width] the token's position."""
  places = np.arange(group.width, dtype=np.float64)
  return np.broadcast_to(places, group.ids.shape).copy()


def length_scores(group: Group, tokenizer: Tokenizer) -> np.ndarray:
  """[prompts, width] number of characters of each token, spaces cut off."""
  flat = tokenizer.pieces(group.ids.reshape(-1))
  lengths = [len(piece.strip()) for piece in flat]
  return np.asarray(lengths, np.float64).reshape(group.ids.shape)
