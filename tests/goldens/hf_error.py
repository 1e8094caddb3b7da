"""How far one Hugging Face run is from another, site by site."""

import numpy as np
import torch


def to_bfloat16(lm: torch.nn.Module) -> torch.nn.Module:
  """Rounds the weights as `from_pretrained(dtype=torch.bfloat16)` does.

  `lm.to(torch.bfloat16)` alone would round the RoPE frequencies too.
  """
  rotary = lm.model.rotary_emb
  exact = {name: value.clone() for name, value in rotary.named_buffers()}
  lm.to(torch.bfloat16)
  for name, value in exact.items():
    rotary.register_buffer(name, value, persistent=False)
  return lm


def difference(
  ours: dict[str, np.ndarray], truth: dict[str, np.ndarray], mask: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Relative error and cosine of every unpadded vector, for each site.

  Args:
    ours: Site -> [..., batch, seq, width].
    truth: The same sites, and perhaps more.
    mask: [batch, seq], 0 for padding.
  """
  found = {}
  valid = mask.astype(bool)
  for site in sorted(ours.keys() & truth.keys() - {"resid_pre", "logits"}):
    x = truth[site][..., valid, :].astype(np.float64)
    y = ours[site][..., valid, :].astype(np.float64)
    norm = np.linalg.norm(x, axis=-1)
    error = np.linalg.norm(y - x, axis=-1) / norm
    cosine = (x * y).sum(-1) / (norm * np.linalg.norm(y, axis=-1))
    found[site] = (error.ravel(), cosine.ravel())
  return found


def summary(parts: list[dict]) -> dict[str, dict[str, float]]:
  """Median and worst error and lowest cosine of a site, over all parts."""
  table = {}
  for site in parts[0]:
    error = np.concatenate([part[site][0] for part in parts])
    cosine = np.concatenate([part[site][1] for part in parts])
    table[site] = {
      "median": round(float(np.median(error)), 6),
      "p99": round(float(np.quantile(error, 0.99)), 6),
      "worst": round(float(error.max()), 6),
      "lowest_cosine": round(float(cosine.min()), 6),
    }
  return table


def largest_logit_error(
  ours: np.ndarray, truth: np.ndarray, mask: np.ndarray
) -> list[float]:
  """The largest absolute logit difference at every unpadded position."""
  places = zip(*np.nonzero(mask), strict=True)
  return [float(np.abs(ours[p] - truth[p]).max()) for p in places]
