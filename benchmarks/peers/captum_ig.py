"""captum's integrated gradients over Hugging Face's model."""

from collections.abc import Mapping
import time
from typing import Any

from benchmarks.peers.hf_hooks import TARGET, load
from benchmarks.protocol import Case, limit_threads, serve

BATCHES = (20, 10, 5)  # steps at once


def _integrated_gradients(given: Mapping[str, Any]) -> Case:
  from captum.attr import IntegratedGradients
  import torch

  lm = load(given["folder"])
  leaf = lm.model.embed_tokens(torch.tensor(given["tokens"])).detach()

  def objective(embeddings):
    output = lm(inputs_embeds=embeddings, use_cache=False, logits_to_keep=1)
    return output.logits[:, -1, TARGET]

  def attribute(batch: int):
    return IntegratedGradients(objective).attribute(
      leaf,
      baselines=torch.zeros_like(leaf),
      n_steps=given["steps"],
      method="gausslegendre",
      internal_batch_size=batch,
    )

  best = min(BATCHES, key=lambda batch: _seconds(lambda: attribute(batch)))
  return Case(
    lambda: attribute(best), lambda found: float(found.sum(-1).abs().sum())
  )


def _seconds(call) -> float:
  """Time of the second call."""
  call()
  start = time.perf_counter()
  call()
  return time.perf_counter() - start


CASES = {"integrated_gradients": _integrated_gradients}

if __name__ == "__main__":
  limit_threads()
  serve(CASES, ("torch", "transformers", "captum"))
