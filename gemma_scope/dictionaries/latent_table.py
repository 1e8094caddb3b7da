"""What is known of a dictionary's latents: when they fire, what they say.

    windows      the tokens around their strongest activations
    frequencies  the fraction of tokens on which they are active
    histograms   how strong activations are, in half octaves
    logits       the tokens that their decoder rows favour and disfavour

Plain NumPy, one row a latent. `analysis.latent_examples` measures it, the
starter suite stores it. The published tables of Gemma Scope 2, which offer the
same methods, are in `examples`.
"""

import dataclasses

import numpy as np

from gemma_scope.dictionaries.examples import Example, LogitEffects
from gemma_scope.errors import ConfigError

NOTHING = -1  # stands for a token where a window has none
# Bin i counts activations from EDGES[i] up to the next edge; the first also
# takes what is smaller, the last what is larger.
EDGES = 2.0 ** (np.arange(64) / 2 - 10)


@dataclasses.dataclass(frozen=True)
class LatentTable:
  """One row a latent.

  Attributes:
    tokens: [latents, examples, window] int32 token ids, strongest example
      first; `NOTHING` where there is none.
    activations: [latents, examples, window] float32, the latent's at each.
    frequencies: [latents] float32, the fraction of tokens it is active on.
    maxima: [latents] float32, the largest activation.
    histograms: [latents, bins] int64, active tokens by activation (`EDGES`).
    logit_tokens: [latents, 2, count] int32, favoured and disfavoured tokens.
    logit_values: [latents, 2, count] float32, logits by unit of activation.
    counted: Number of tokens that all this was measured on.
  """

  tokens: np.ndarray
  activations: np.ndarray
  frequencies: np.ndarray
  maxima: np.ndarray
  histograms: np.ndarray
  logit_tokens: np.ndarray
  logit_values: np.ndarray
  counted: int

  def __post_init__(self) -> None:
    rows = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    lengths = {k: len(v) for k, v in rows.items() if k != "counted"}
    pairs = (("tokens", "activations"), ("logit_tokens", "logit_values"))
    alike = all(rows[a].shape == rows[b].shape for a, b in pairs)
    if len(set(lengths.values())) != 1 or not alike:
      raise ConfigError(
        "The columns of a table of latents do not fit together.",
        received=", ".join(f"{k} {np.shape(v)}" for k, v in rows.items()),
        instead="arrays with one row for each latent",
      )

  @property
  def num_latents(self) -> int:
    """How many latents it describes."""
    return len(self.maxima)

  @property
  def dead(self) -> np.ndarray:
    """[latents] whether it was never active."""
    return self.frequencies == 0

  def top(self, latent: int, count: int = 10) -> list[Example]:
    """The places where a latent is most active, strongest first.

    Raises:
      ConfigError: There is no such latent.
    """
    self.check(latent)
    found = []
    pairs = zip(self.tokens[latent], self.activations[latent])
    for tokens, activations in list(pairs)[:count]:
      there = tokens != NOTHING
      if there.any() and activations.max() > 0:
        kept = activations[there]
        peak = int(kept.argmax())
        found.append(Example(float(kept[peak]), tokens[there], peak, kept))
    return found

  def frequency(self, latent: int) -> float:
    """The fraction of tokens on which a latent is active."""
    self.check(latent)
    return float(self.frequencies[latent])

  def favoured(self, latent: int) -> LogitEffects:
    """The tokens whose logits a latent raises most."""
    return self._effects(latent, 0)

  def disfavoured(self, latent: int) -> LogitEffects:
    """The tokens whose logits a latent lowers most."""
    return self._effects(latent, 1)

  def histogram(self, latent: int) -> list[tuple[float, float, int]]:
    """(from, to, active tokens) of every bin from the first to the last used.

    Bounds are activations; half an octave lies between them.
    """
    self.check(latent)
    counts = self.histograms[latent]
    used = np.flatnonzero(counts)
    if not used.size:
      return []
    step = EDGES[1] / EDGES[0]
    return [
      (float(EDGES[i]), float(EDGES[i] * step), int(counts[i]))
      for i in range(used[0], used[-1] + 1)
    ]

  def check(self, latent: int) -> None:
    """Refuses a number that is no latent's.

    Raises:
      ConfigError: There is no such latent.
    """
    if not 0 <= latent < self.num_latents:
      raise ConfigError(
        "There is no such latent.",
        received=f"latent {latent}",
        instead=f"a number from 0 to {self.num_latents - 1}",
      )

  def _effects(self, latent: int, end: int) -> LogitEffects:
    self.check(latent)
    return LogitEffects(
      self.logit_tokens[latent, end], self.logit_values[latent, end]
    )
