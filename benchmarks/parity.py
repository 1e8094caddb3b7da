"""How far every activation is from Hugging Face's, as a page of tables.

    python -m benchmarks.parity --golden FOLDER [--out docs/PARITY.md]

from the repository's root, in the environment that has `gemma-scope[demo]`.
FOLDER holds the complete tensors of Hugging Face transformers, which another
environment wrote (tests/goldens/README.md says what to install there):

    python -m tests.goldens.hugging_face tests/goldens --full FOLDER
    python -m tests.goldens.hugging_face_shapes tests/goldens --full FOLDER

The real Gemma 3 270M on four texts, and small random models of the shape of
every size, each in float32 and bfloat16. The truth is always Hugging Face in
float32. Takes two minutes and 6 GB on two cores. `parity_page.py` lays it out.
"""

import argparse
from collections.abc import Iterator, Mapping
import dataclasses
import json
import os
import pathlib
import tempfile

import jax
import numpy as np

from benchmarks.parity_page import (
  Comparison,
  LogitError,
  Report,
  SiteError,
  page,
)
import gemma_scope as gs
from gemma_scope import axes
from gemma_scope.manifest import make_manifest
from gemma_scope.model.config import GemmaConfig
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.model.gemma import token_logits
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import SITES
from gemma_scope.testing.tokenizer import tiny_tokenizer
from tests.goldens import shapes

ROOT = pathlib.Path(__file__).resolve().parent.parent
STORED = ROOT / "tests" / "goldens"
TEXTS = ("natural", "window", "padded", "ioi")
DTYPES = ("float32", "bfloat16")
# `query` and `key` are missing: the hooks see them before RoPE only.
NAMES = tuple(n for n in SITES if n not in ("query", "key", "logits"))
COLUMNS = 64  # positions whose logits are in memory at a time

Golden = Mapping[str, np.ndarray]


def main() -> None:
  """Measures, prints the page and writes it."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--golden", type=pathlib.Path, required=True)
  parser.add_argument("--out", type=pathlib.Path, default="docs/PARITY.md")
  options = parser.parse_args()
  text = page(measure(options.golden))
  print(text)
  write(options.out, text)


def measure(folder: pathlib.Path) -> Report:
  """Compares everything with the tensors in `folder`."""
  table = json.loads((STORED / "hugging_face_bf16.json").read_text())
  theirs = {"real": table["from_pretrained"]}
  small = json.loads((STORED / "hugging_face_shapes_bf16.json").read_text())
  theirs |= {name: small[name] for name in shapes.SHAPES}
  return Report(
    real=tuple(c for dtype in DTYPES for c in compare_real(folder, dtype)),
    shapes=tuple(
      compare_shape(folder, name, dtype)
      for dtype in DTYPES
      for name in shapes.SHAPES
    ),
    theirs=theirs,
    nll=table["nll_float32"],
    ours=make_manifest({}).to_dict(),
    hugging_face=table["manifest"],
    shapes_of={n: dataclasses.asdict(s) for n, s in shapes.SHAPES.items()},
  )


def compare_real(folder: pathlib.Path, dtype: str) -> Iterator[Comparison]:
  """The real weights on every text."""
  lm = gs.load("gemma-3-270m", dtype=dtype)
  for text in TEXTS:
    with np.load(folder / f"{text}.npz") as truth:
      tokens, mask = truth["tokens"], truth["mask"]
      values = capture(lm, tokens, mask, [n for n in NAMES if n in truth])
      errors = site_errors(values, truth, mask)
      stored = np.load(STORED / f"hugging_face_{text}.npz")
      logits = logit_error(lm, values["final_norm"], truth, stored)
    yield Comparison(text, dtype, tokens, mask, errors, logits)


def compare_shape(folder: pathlib.Path, name: str, dtype: str) -> Comparison:
  """A small random model of one size's shape."""
  config = GemmaConfig(size=name, **dataclasses.asdict(shapes.SHAPES[name]))
  model = tensors_to_gemma(shapes.weights(name), config, np.dtype(dtype))
  lm = LanguageModel(model, tiny_tokenizer(), config, name, "random")
  tokens, mask = (a.astype(np.int32) for a in shapes.inputs(name))
  with np.load(folder / f"shape_{name}.npz") as truth:
    values = capture(lm, tokens, mask, [n for n in NAMES if n in truth])
    errors = site_errors(values, truth, mask)
    top = truth["logits"].argmax(-1)[..., None]
    stored = {"tokens": tokens, "mask": mask, "top_ids": top}
    logits = logit_error(lm, values["final_norm"], truth, stored)
  return Comparison(name, dtype, tokens, mask, errors, logits)


def capture(
  lm: LanguageModel, tokens: np.ndarray, mask: np.ndarray, names: list[str]
) -> dict[str, np.ndarray]:
  """Site name -> [layer, batch, seq, width] float32; one layer for `embed`.

  Patterns are captured by themselves: a tap there makes attention compute
  them whole, which is not how it runs without one.
  """
  found = {}
  for group in ([n for n in names if n != "pattern"], ["pattern"]):
    group = [n for n in group if n in names]
    sites = [n + ("[:]" if SITES[n].per_layer else "") for n in group]
    acts = gs.capture(lm, tokens, sites, segment_ids=mask) if sites else {}
    for name in group:
      order = SITES[name].axes
      arrays = [v.unwrap(*order) for s, v in acts.items() if s.name == name]
      value = np.stack([np.asarray(a, np.float32) for a in arrays])
      found[name] = by_token(value, order)
  return found


def by_token(value: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
  """[layer, *order] to [layer, batch, seq, width], heads side by side."""
  value = np.moveaxis(value, 1 + order.index(axes.SEQ), 2)
  return value.reshape(*value.shape[:3], -1)


def site_errors(
  values: Mapping[str, np.ndarray], truth: Golden, mask: np.ndarray
) -> dict[str, SiteError]:
  """Site name -> how far every unpadded token's vector is from the truth."""
  errors = {}
  for name, ours in values.items():
    stored = truth[name]
    if name == "pattern":
      stored = by_token(stored, SITES["pattern"].axes)
    stored = stored.reshape(ours.shape)
    errors[name] = site_error(ours, stored, mask.astype(bool))
  return errors


def site_error(
  ours: np.ndarray, truth: np.ndarray, mask: np.ndarray
) -> SiteError:
  """Errors of [layer, batch, seq, width] where `mask` [batch, seq] is set."""
  places = np.argwhere(mask)
  error, cosine = [], []
  for a, b in zip(ours, truth):  # layer by layer: float64 takes memory
    x, y = a[mask].astype(np.float64), b[mask].astype(np.float64)
    lengths = np.linalg.norm(x, axis=-1), np.linalg.norm(y, axis=-1)
    error.append(np.linalg.norm(x - y, axis=-1) / lengths[1])
    unit = x / lengths[0][:, None] - y / lengths[1][:, None]
    cosine.append(1 - (unit**2).sum(-1) / 2)
  layer, token = np.unravel_index(np.argmax(error), np.shape(error))
  return SiteError(
    worst=float(np.max(error)),
    layer=int(layer),
    token=tuple(places[token].tolist()),
    median=float(np.median(error)),
    distance=1 - float(np.min(cosine)),
    vectors=int(np.size(error)),
  )


def logit_error(
  lm: LanguageModel, normed: np.ndarray, truth: Golden, stored: Golden
) -> LogitError:
  """Logits against the complete ones where there are, argmax everywhere."""
  columns = np.arange(stored["tokens"].shape[1])
  complete = truth.get("logits_positions", columns).tolist()
  mask = stored["mask"].astype(bool)
  largest, equal, nll = [], [], []
  exact = truth["logits"]
  for start in range(0, len(columns), COLUMNS):
    here = columns[start : start + COLUMNS]
    logits = unembed(lm, normed[0][:, here])
    same = logits.argmax(-1) == stored["top_ids"][:, here, 0]
    equal.append(same[mask[:, here]])
    nll.append(following_nll(logits, stored["tokens"], mask, here))
    for i, column in enumerate(here):
      if column in complete:
        other = exact[:, complete.index(column)]
        difference = np.abs(logits[:, i] - other).max(-1)
        largest.append(difference[mask[:, column]])
  largest, equal = np.concatenate(largest), np.concatenate(equal)
  return LogitError(
    worst=float(largest.max()),
    median=float(np.median(largest)),
    compared=len(largest),
    argmax_equal=int(equal.sum()),
    positions=len(equal),
    nll=float(np.concatenate(nll).mean()),
  )


def unembed(lm: LanguageModel, normed: np.ndarray) -> np.ndarray:
  """[batch, columns, vocabulary] float32 from the final norm's output."""
  table = lm.model.table.data_array
  rows = normed.reshape(-1, normed.shape[-1]).astype(table.dtype)
  logits = jax.jit(token_logits)(rows, table)
  return np.asarray(logits).reshape(*normed.shape[:2], -1)


def following_nll(
  logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray, here: np.ndarray
) -> np.ndarray:
  """Negative log-likelihood of the token behind each column of `here`."""
  here = here[here + 1 < tokens.shape[1]]
  exact = logits[:, : len(here)].astype(np.float64)
  most = exact.max(-1, keepdims=True)
  total = np.log(np.exp(exact - most).sum(-1)) + most[..., 0]
  ids = tokens[:, here + 1]
  chosen = np.take_along_axis(exact, ids[..., None], -1)[..., 0]
  return (total - chosen)[mask[:, here + 1]]


def write(path: pathlib.Path, text: str) -> None:
  """Puts the page in place, whole or not at all."""
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, name = tempfile.mkstemp(dir=path.parent)
  with os.fdopen(handle, "w", encoding="utf-8") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.chmod(name, 0o644)
  os.replace(name, path)


if __name__ == "__main__":
  main()
