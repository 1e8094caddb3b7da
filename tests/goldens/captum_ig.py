"""Goldens of gradients and integrated gradients on the real Gemma 3 270M.

Hugging Face's autograd and captum, float32, eager attention. Runs in an
environment with torch, transformers, captum, gguf and the GGUF package:

    python -m tests.goldens.captum_ig OUT [--full FOLDER] [--model FOLDER]

The attributed input is the scaled token embedding (site `embed`, what
`inputs_embeds` takes); the objective is a logit or a difference of two logits
at the last position. Baselines: `zero`, and `pad`, the scaled embeddings of
BOS followed by <pad> tokens. OUT receives captum_ig.npz. Keys, for every
PROMPT of PROMPTS and each OBJECTIVE ("logit", "difference"):

    PROMPT/tokens                      [T] int32, BOS first
    PROMPT/target, PROMPT/against      the two token ids
    PROMPT/OBJECTIVE/value             of the objective at the input
    PROMPT/OBJECTIVE/input_x_gradient  [T], summed over the embedding axis
    PROMPT/OBJECTIVE/gradient_sketch   [T, 9] of the gradient, see sketch.py
    PROMPT/OBJECTIVE/site/{site}       [L, T] x . gradient at a layer's site
    PROMPT/OBJECTIVE/{baseline}/value  of the objective at the baseline
    PROMPT/OBJECTIVE/{baseline}/{method}_{n}  [T] integrated gradients summed
                                       over the embedding axis; `method` and
                                       `n` are captum's method and n_steps
    …/{method}_{n}_sketch              [T, 9] of the [T, d_model] attribution
    …/{method}_{n}_delta               captum's convergence delta: sum of the
                                       attribution minus the difference of
                                       the objective
    manifest                           versions, as JSON text

From zero, integrated gradients do not converge at these numbers of steps (an
RMSNorm makes the start of the path nearly a jump); from pad, 200 steps do, to
1e-3. Compare with the same quadrature, not with the integral. The trapezoid
rule is left out: from zero its first gradient overflows in float32.
"""

import argparse
import importlib.metadata
import json
from pathlib import Path

from captum.attr import InputXGradient, IntegratedGradients
import numpy as np
import torch

from tests.goldens import gemma_270m, sketch, texts

# name -> (text, target, against)
PROMPTS = {
  "ioi": (texts.IOI, " Mary", " John"),
  "capital": (texts.CAPITAL, " Paris", " Rome"),
  "fox": ("The keys to the old wooden cabinet", " are", " is"),
}
# (captum's method, steps)
QUADRATURES = (
  ("gausslegendre", 20),
  ("riemann_middle", 20),
  ("gausslegendre", 200),
)
SITES = {
  "resid_post": "",
  "attn_write": "post_attention_layernorm",
  "mlp_write": "post_feedforward_layernorm",
  "attn_proj": "self_attn.o_proj",
}
PACKAGES = ("torch", "transformers", "captum", "gguf", "numpy")


def objective(lm: torch.nn.Module, target: int, against: int | None):
  """A function of embeddings [B, T, d] that returns the objective [B]."""

  def call(embeddings: torch.Tensor) -> torch.Tensor:
    output = lm(inputs_embeds=embeddings, logits_to_keep=1, use_cache=False)
    logits = output.logits[:, -1]
    if against is None:
      return logits[:, target]
    return logits[:, target] - logits[:, against]

  return call


def site_relevance(
  lm: torch.nn.Module, call, embeddings: torch.Tensor
) -> dict[str, np.ndarray]:
  """Site -> [L, T] sum over the width of activation times gradient."""
  kept: dict[str, list[torch.Tensor]] = {site: [] for site in SITES}
  handles = []
  for layer in lm.model.layers:
    for site, path in SITES.items():

      def hook(module, args, output, site=site):
        value = output[0] if isinstance(output, tuple) else output
        value.retain_grad()
        kept[site].append(value)

      handles.append(layer.get_submodule(path).register_forward_hook(hook))
  call(embeddings.detach().requires_grad_()).sum().backward()
  for handle in handles:
    handle.remove()
  return {
    site: np.stack([(x * x.grad).sum(-1)[0].detach().numpy() for x in values])
    for site, values in kept.items()
  }


def gradients(
  lm: torch.nn.Module, call, embeddings: torch.Tensor
) -> dict[str, np.ndarray]:
  """Plain gradients of one objective, at the input and at the sites."""
  leaf = embeddings.detach().requires_grad_()
  gradient = torch.autograd.grad(call(leaf).sum(), leaf)[0][0]
  product = (gradient * embeddings[0]).sum(-1).numpy()
  by_captum = InputXGradient(call).attribute(leaf).sum(-1)[0].detach().numpy()
  np.testing.assert_allclose(by_captum, product, rtol=1e-4, atol=1e-4)
  out = {
    "input_x_gradient": product,
    "gradient_sketch": sketch.sketch(gradient.numpy()),
  }
  for site, value in site_relevance(lm, call, embeddings).items():
    out[f"site/{site}"] = value
  return out


def integrated(
  call, embeddings: torch.Tensor, baseline: torch.Tensor
) -> dict[str, np.ndarray]:
  """Integrated gradients by every quadrature; keys `{method}_{steps}`."""
  with torch.no_grad():
    out = {"value": call(baseline)[0].numpy()}
  for method, steps in QUADRATURES:
    attribution, delta = IntegratedGradients(call).attribute(
      embeddings,
      baselines=baseline,
      n_steps=steps,
      method=method,
      internal_batch_size=20,
      return_convergence_delta=True,
    )
    values = attribution[0].detach().numpy()
    name = f"{method}_{steps}"
    out[name] = values.sum(-1, dtype=np.float64).astype(np.float32)
    out[f"{name}_sketch"] = sketch.sketch(values)
    out[f"{name}_delta"] = delta.detach().numpy().astype(np.float32)[0]
    out[f"{name}_full"] = values.astype(np.float32)
  return out


def attributions(
  lm: torch.nn.Module, tokens: list[int], target: int, against: int | None
) -> dict[str, np.ndarray]:
  """All goldens of one prompt and one objective."""
  embed = lm.model.embed_tokens
  embeddings = embed(torch.tensor([tokens])).detach()
  pad = embed(torch.tensor([[2] + [0] * (len(tokens) - 1)])).detach()
  baselines = {"zero": torch.zeros_like(embeddings), "pad": pad}
  call = objective(lm, target, against)
  with torch.no_grad():
    out = {"value": call(embeddings)[0].numpy()}
  out |= gradients(lm, call, embeddings)
  for name, baseline in baselines.items():
    for key, value in integrated(call, embeddings, baseline).items():
      out[f"{name}/{key}"] = value
  return out


def main() -> None:
  """Writes all goldens of this script."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("out", type=Path)
  parser.add_argument("--full", type=Path)
  parser.add_argument("--model")
  options = parser.parse_args()
  lm = gemma_270m.model(options.model).requires_grad_(False)
  pieces = gemma_270m.tokenizer()
  versions = {name: importlib.metadata.version(name) for name in PACKAGES}
  stored: dict = {"manifest": json.dumps(versions)}
  for name, (text, *answers) in PROMPTS.items():
    tokens = gemma_270m.with_bos(pieces, text)
    target, against = (pieces.encode(answer)[0] for answer in answers)
    stored[f"{name}/tokens"] = np.array(tokens, np.int32)
    stored[f"{name}/target"], stored[f"{name}/against"] = target, against
    for label, other in (("logit", None), ("difference", against)):
      values = attributions(lm, tokens, target, other)
      stored |= {f"{name}/{label}/{key}": v for key, v in values.items()}
      deltas = {k: float(v) for k, v in values.items() if k.endswith("delta")}
      print(name, label, float(values["value"]), deltas)
  small = {k: v for k, v in stored.items() if not k.endswith("_full")}
  np.savez_compressed(options.out / "captum_ig.npz", **small)
  if options.full:
    np.savez(options.full / "captum_ig.npz", **stored)


if __name__ == "__main__":
  main()
