"""Goldens of captum's other methods: real Gemma 3 270M, and small networks.

Saliency, SmoothGrad without noise, occlusion and ablation of the real model's
scaled embeddings; DeepLIFT (rescale) of small random networks. Runs in an
environment with torch, transformers, captum, gguf and the GGUF package:

    python -m tests.goldens.captum_methods OUT [--model FOLDER]

The objective is the difference of two logits at the last position of one
prompt. The baseline of occlusion is BOS followed by <pad> embeddings. OUT
receives captum_methods.npz. Keys:

    tokens, target, against, value   the prompt, the two tokens, the objective
    saliency                         [T] sum of |gradient| over the width
    saliency_l2                      [T] length of autograd's gradient
    smoothgrad                       [T] NoiseTunnel over InputXGradient,
                                     standard deviation zero
    ablation                         [T] FeatureAblation, a token at a time
    occlusion_{window}_{stride}      [T] Occlusion by windows of tokens
    {name}/x, reference              [B, 6] inputs of a small network
    {name}/w0, b0, w1, b1, w2        its weights, y = act(x w0 + b0) …
    {name}/value, reference_value    [B] its outputs
    {name}/deeplift                  [B, 6] captum's DeepLift
    manifest                         versions, as JSON text

NAME is an activation of NETWORKS.
"""

import argparse
import importlib.metadata
import json
from pathlib import Path

from captum.attr import (
  DeepLift,
  FeatureAblation,
  InputXGradient,
  NoiseTunnel,
  Occlusion,
  Saliency,
)
import numpy as np
import torch

from tests.goldens import gemma_270m, texts
from tests.goldens.captum_ig import objective

NETWORKS = {
  "relu": torch.nn.ReLU,
  "tanh": torch.nn.Tanh,
  "sigmoid": torch.nn.Sigmoid,
  "softplus": torch.nn.Softplus,
  "elu": torch.nn.ELU,
  "leaky_relu": torch.nn.LeakyReLU,
}
WINDOWS = ((2, 1), (3, 2), (4, 4))
PACKAGES = ("torch", "transformers", "captum", "gguf", "numpy")


def on_gemma(lm: torch.nn.Module) -> dict[str, np.ndarray]:
  """Goldens of the real model."""
  pieces = gemma_270m.tokenizer()
  tokens = gemma_270m.with_bos(pieces, texts.CAPITAL)
  target, against = (pieces.encode(t)[0] for t in (" Paris", " Rome"))
  embed, call = lm.model.embed_tokens, objective(lm, target, against)
  x = embed(torch.tensor([tokens])).detach()
  pad = embed(torch.tensor([[2] + [0] * (len(tokens) - 1)])).detach()
  out = {"tokens": np.array(tokens, np.int32), "target": target}
  out |= {"against": against, "value": float(call(x)[0])}
  leaf = x.clone().requires_grad_()
  gradient = torch.autograd.grad(call(leaf).sum(), leaf)[0][0]
  out["saliency_l2"] = gradient.norm(dim=-1).numpy()
  out["saliency"] = Saliency(call).attribute(leaf).sum(-1)[0].detach().numpy()
  smooth = NoiseTunnel(InputXGradient(call)).attribute(
    leaf, nt_type="smoothgrad", nt_samples=2, stdevs=0.0
  )
  out["smoothgrad"] = smooth.sum(-1)[0].detach().numpy()
  groups = torch.arange(len(tokens))[None, :, None].expand_as(x)
  with torch.no_grad():
    ablated = FeatureAblation(call).attribute(
      x, baselines=pad, feature_mask=groups
    )
    out["ablation"] = ablated[0, :, 0].numpy()
    for window, stride in WINDOWS:
      width = x.shape[-1]
      hidden = Occlusion(call).attribute(
        x,
        sliding_window_shapes=(window, width),
        strides=(stride, width),
        baselines=pad,
      )
      out[f"occlusion_{window}_{stride}"] = hidden[0, :, 0].numpy()
  return out


def on_network(activation: type[torch.nn.Module]) -> dict[str, np.ndarray]:
  """Goldens of a small random network of two hidden layers."""
  torch.manual_seed(0)
  layers = [torch.nn.Linear(6, 8), activation(), torch.nn.Linear(8, 5)]
  layers += [activation(), torch.nn.Linear(5, 1, bias=False)]
  network = torch.nn.Sequential(*layers)
  x, reference = torch.randn(4, 6) * 2, torch.randn(4, 6)
  # Some inputs do not change at all.
  reference[0, :3] = x[0, :3]
  found = DeepLift(network).attribute(x, baselines=reference)
  weights = {
    "w0": layers[0].weight.T,
    "b0": layers[0].bias,
    "w1": layers[2].weight.T,
    "b1": layers[2].bias,
    "w2": layers[4].weight.T,
  }
  out = weights | {"x": x, "reference": reference, "deeplift": found}
  out |= {"value": network(x)[:, 0]}
  out |= {"reference_value": network(reference)[:, 0]}
  return {name: value.detach().numpy() for name, value in out.items()}


def main() -> None:
  """Writes all goldens of this script."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("out", type=Path)
  parser.add_argument("--model")
  options = parser.parse_args()
  versions = {name: importlib.metadata.version(name) for name in PACKAGES}
  stored: dict = {"manifest": json.dumps(versions)}
  stored |= on_gemma(gemma_270m.model(options.model).requires_grad_(False))
  for name, activation in NETWORKS.items():
    found = on_network(activation)
    stored |= {f"{name}/{key}": value for key, value in found.items()}
  np.savez_compressed(options.out / "captum_methods.npz", **stored)


if __name__ == "__main__":
  main()
