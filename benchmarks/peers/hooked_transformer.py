"""TransformerLens: HookedTransformer.run_with_cache.

The weights are those of the Hugging Face folder, unprocessed. The model is
built without its tokenizer, which TransformerLens would ask a hub for.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.peers.hf_hooks import load as load_hugging_face
from benchmarks.protocol import Case, limit_threads, serve

NAME = "google/gemma-3-270m"


def load(folder: str):
  """A HookedTransformer with the weights of `folder`, float32."""
  import torch
  from transformer_lens import HookedTransformer, loading_from_pretrained

  cfg = loading_from_pretrained.get_pretrained_model_config(
    NAME, device="cpu", dtype=torch.float32
  )
  cfg.tokenizer_name = None
  weights = loading_from_pretrained.get_pretrained_state_dict(
    NAME, cfg, load_hugging_face(folder), dtype=torch.float32
  )
  model = HookedTransformer(cfg, move_to_device=False)
  model.load_and_process_state_dict(
    weights,
    fold_ln=False,
    center_writing_weights=False,
    center_unembed=False,
    fold_value_biases=False,
    refactor_factored_attn_matrices=False,
  )
  return model.eval().requires_grad_(False)


def _cached(given: Mapping[str, Any], layers: range, last: int) -> Case:
  import torch

  model = load(given["folder"])
  tokens = torch.tensor(given["tokens"])
  names = [f"blocks.{i}.hook_resid_post" for i in layers]

  def call():
    with torch.inference_mode():
      # The residual stream is returned, so nothing is unembedded.
      return model.run_with_cache(
        tokens,
        names_filter=names,
        return_type=None,
        stop_at_layer=last,
        return_cache_object=False,
      )[1]

  return Case(call, lambda cache: float(cache[names[-1]].norm()))


def _capture(given: Mapping[str, Any]) -> Case:
  return _cached(given, range(18), 18)


def _layer(given: Mapping[str, Any]) -> Case:
  layer = given["layer"]
  return _cached(given, range(layer, layer + 1), layer + 1)


def _patching(given: Mapping[str, Any]) -> Case:
  """transformer_lens.patching over layers and positions, as a user calls it."""
  import pandas as pd
  import torch
  from transformer_lens import patching

  model = load(given["folder"])
  clean, corrupt = (
    torch.tensor([given[name]]) for name in ("clean", "corrupt")
  )
  yes, no = given["answers"]
  cells = pd.DataFrame(
    [(i, p) for i in given["layers"] for p in given["positions"]],
    columns=["layer", "pos"],
  )
  names = ("resid_pre", "attn_out", "mlp_out")

  def metric(logits):
    return logits[0, -1, yes] - logits[0, -1, no]

  def sweep(cells):
    with torch.inference_mode():
      _, cache = model.run_with_cache(
        clean, names_filter=lambda name: name.endswith(names)
      )
      return [
        patching.generic_activation_patch(
          *(model, corrupt, cache, metric, patching.layer_pos_patch_setter),
          *(name, None, cells),
        )
        for name in names
      ]

  return Case(
    lambda: sweep(cells),
    lambda found: sum(float(x.abs().sum()) for x in found),
    warm=lambda: sweep(cells[:1]),  # there is nothing to compile
  )


CASES = {"capture": _capture, "layer": _layer, "patching": _patching}

if __name__ == "__main__":
  limit_threads()
  serve(CASES, ("torch", "transformers", "transformer-lens"))
