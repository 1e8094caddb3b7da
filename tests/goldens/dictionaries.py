"""Goldens of dictionaries as SAELens and circuit-tracer write and run them.

Small random dictionaries of every architecture that is read here, saved by the
library itself, with its latents and reconstructions of random vectors, float32
on a CPU. Both run in an environment of their own, from the repository's root:

    pip install sae-lens==6.54.12 circuit-tracer==0.5.0
    python -m tests.goldens.dictionaries OUT

OUT receives dictionaries.npz. Keys, for every NAME:

    saelens/NAME/config              cfg.json, as text
    saelens/NAME/file/TENSOR         sae_weights.safetensors
    circuit_tracer/NAME/config       config.yaml, as text
    circuit_tracer/NAME/file/FILE/TENSOR
    …/x, …/latents, …/output         [tokens, d], or [layer, tokens, d]
    manifest                         versions, as JSON text
"""

import argparse
import importlib.metadata
import json
from pathlib import Path
import tempfile

import numpy as np
import safetensors.numpy
import torch
import yaml

D, LATENTS, TOKENS, LAYERS = 8, 20, 6, 3
PACKAGES = ("sae-lens", "circuit-tracer", "torch", "numpy")
HOOKS = {"hook_name": "blocks.3.hook_resid_post", "hook_head_index": None}
TRANSCODER_HOOKS = {
  "hook_name": "blocks.3.ln2.hook_normalized",
  "hf_hook_name": "model.layers.3.pre_feedforward_layernorm.output",
  "hook_name_out": "blocks.3.hook_mlp_out",
  "hf_hook_name_out": "model.layers.3.post_feedforward_layernorm.output",
}


def randomise(module: torch.nn.Module, seed: int) -> None:
  """Normal weights, positive thresholds."""
  generator = torch.Generator().manual_seed(seed)
  for name, parameter in module.named_parameters():
    noise = torch.randn(parameter.shape, generator=generator)
    scale = 0.3 if parameter.ndim > 1 else 0.2
    value = 0.4 + 0.1 * noise.abs() if "threshold" in name else scale * noise
    parameter.data.copy_(value)


def saelens() -> dict[str, np.ndarray]:
  """Every architecture of SAELens that is read here."""
  from sae_lens import saes

  shape = {"d_in": D, "d_sae": LATENTS, "dtype": "float32", "device": "cpu"}
  plain = {**shape, "apply_b_dec_to_input": False}
  through = {**plain, "d_out": D}
  rows = {
    "standard": (saes.StandardSAE, saes.StandardSAEConfig, shape),
    "standard_not_centred": (saes.StandardSAE, saes.StandardSAEConfig, plain),
    "jumprelu": (saes.JumpReLUSAE, saes.JumpReLUSAEConfig, plain),
    "jumprelu_centred": (saes.JumpReLUSAE, saes.JumpReLUSAEConfig, shape),
    "gated": (saes.GatedSAE, saes.GatedSAEConfig, shape),
    "topk": (saes.TopKSAE, saes.TopKSAEConfig, {**shape, "k": 5}),
    "topk_rescaled": (
      saes.TopKSAE,
      saes.TopKSAEConfig,
      {**shape, "k": 5, "rescale_acts_by_decoder_norm": True},
    ),
    "transcoder": (saes.Transcoder, saes.TranscoderConfig, through),
    "skip_transcoder": (
      saes.SkipTranscoder,
      saes.SkipTranscoderConfig,
      through,
    ),
    "jumprelu_transcoder": (
      saes.JumpReLUTranscoder,
      saes.JumpReLUTranscoderConfig,
      through,
    ),
    "jumprelu_skip_transcoder": (
      saes.JumpReLUSkipTranscoder,
      saes.JumpReLUSkipTranscoderConfig,
      through,
    ),
  }
  stored: dict = {}
  for seed, (name, (kind, config, options)) in enumerate(rows.items()):
    dictionary = kind(config(**options))
    hooks = TRANSCODER_HOOKS if "transcoder" in name else HOOKS
    for key, value in {**hooks, "model_name": "gemma-3-270m"}.items():
      dictionary.cfg.metadata[key] = value
    randomise(dictionary, seed)
    x = torch.randn(TOKENS, D, generator=torch.Generator().manual_seed(99))
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
      latents = dictionary.encode(x)
      latents = latents.to_dense() if latents.is_sparse else latents
      output = dictionary(x)
      dictionary.save_model(folder)
      key = f"saelens/{name}"
      stored[f"{key}/config"] = (Path(folder) / "cfg.json").read_text()
      tensors = safetensors.numpy.load_file(
        Path(folder) / "sae_weights.safetensors"
      )
    stored |= {f"{key}/file/{n}": a for n, a in tensors.items()}
    stored |= _results(key, x, latents, output)
  return stored


def circuit_tracer() -> dict[str, np.ndarray]:
  """Sets of transcoders and CLTs, with and without thresholds and skips."""
  stored: dict = {}
  for name, relu, skip in (
    ("transcoders", False, False),
    ("affine_transcoders", False, True),
    ("relu_transcoders", True, True),
  ):
    stored |= _transcoders(name, relu, skip)
  for name, relu in (("clt", False), ("relu_clt", True)):
    stored |= _clt(name, relu)
  return stored


def _transcoders(name: str, relu: bool, skip: bool) -> dict:
  from circuit_tracer.transcoder import activation_functions
  from circuit_tracer.transcoder.single_layer_transcoder import (
    SingleLayerTranscoder,
    TranscoderSet,
  )

  cpu = torch.device("cpu")
  single = {}
  for i in range(LAYERS):
    activation = (
      torch.nn.functional.relu
      if relu
      else activation_functions.JumpReLU(torch.ones(LATENTS), 0.1)
    )
    single[i] = SingleLayerTranscoder(
      D,
      LATENTS,
      activation,
      i,
      skip_connection=skip,
      device=cpu,
      dtype=torch.float32,
    )
    randomise(single[i], 10 + i)
  both = TranscoderSet(
    single,
    feature_input_hook="mlp.hook_in",
    feature_output_hook="hook_mlp_out",
  )
  x = torch.randn(LAYERS, TOKENS, D, generator=_generator())
  with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
    latents = torch.stack([both.encode_layer(x[i], i) for i in range(LAYERS)])
    output = torch.stack([single[i](x[i]) for i in range(LAYERS)])
    both.to_safetensors(folder)
    files = _files(f"circuit_tracer/{name}", folder, "transcoder_set")
  return files | _results(f"circuit_tracer/{name}", x, latents, output)


def _clt(name: str, relu: bool) -> dict:
  from circuit_tracer.transcoder.cross_layer_transcoder import (
    CrossLayerTranscoder,
  )

  clt = CrossLayerTranscoder(
    LAYERS,
    LATENTS,
    D,
    activation_function="relu" if relu else "jump_relu",
    lazy_decoder=False,
    device=torch.device("cpu"),
    dtype=torch.float32,
  )
  randomise(clt, 20)
  x = torch.randn(LAYERS, TOKENS, D, generator=_generator())
  with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
    latents = clt.encode(x)
    output = clt.decode(latents.to_sparse())
    clt.to_safetensors(folder)
    kind = "cross_layer_transcoder"
    files = _files(f"circuit_tracer/{name}", folder, kind)
  return files | _results(f"circuit_tracer/{name}", x, latents, output)


def _generator() -> torch.Generator:
  return torch.Generator().manual_seed(99)


def _files(key: str, folder: str, kind: str) -> dict:
  config = {
    "model_name": "google/gemma-3-270m",
    "model_kind": kind,
    "feature_input_hook": "mlp.hook_in",
    "feature_output_hook": "hook_mlp_out",
    "scan": "golden",
  }
  stored: dict = {f"{key}/config": yaml.safe_dump(config)}
  for path in sorted(Path(folder).glob("*.safetensors")):
    for name, array in safetensors.numpy.load_file(path).items():
      stored[f"{key}/file/{path.name}/{name}"] = array
  return stored


def _results(key: str, x, latents, output) -> dict:
  values = {"x": x, "latents": latents, "output": output}
  return {f"{key}/{n}": v.detach().numpy() for n, v in values.items()}


def main() -> None:
  """Writes all goldens of this script."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("out", type=Path)
  out = parser.parse_args().out
  versions = {name: importlib.metadata.version(name) for name in PACKAGES}
  stored = {**saelens(), **circuit_tracer()}
  stored["manifest"] = json.dumps(versions)
  np.savez_compressed(out / "dictionaries.npz", **stored)
  for key in stored:
    if key.endswith("/latents"):
      active = (stored[key] != 0).mean()
      print(f"{key}: {stored[key].shape}, {active:.3f} active")


if __name__ == "__main__":
  main()
