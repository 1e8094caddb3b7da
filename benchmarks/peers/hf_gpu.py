"""Hugging Face transformers' side of benchmarks.gpu_capture.

    python -m benchmarks.peers.hf_gpu ARGUMENTS.json RESULTS.jsonl

Scaled-dot-product attention, forward hooks on every decoder layer, no head.
The variant `compiled` puts torch.compile on every layer (equal layers share
what is compiled), with the hooks outside of it.
"""

from collections.abc import Mapping
import functools
import math
import sys
import time
from typing import Any

import torch
import transformers

from benchmarks.gpu_cases import (
  FIRST,
  SECOND,
  Case,
  factor_of,
  is_global,
  salt_of,
)
from benchmarks.gpu_timing import Results, arguments, repeat

BITS = 0xFFFFFFFF
_NORMS = {
  "input_layernorm": "pre_attention_norm",
  "post_attention_layernorm": "post_attention_norm",
  "pre_feedforward_layernorm": "pre_ffw_norm",
  "post_feedforward_layernorm": "post_ffw_norm",
  "self_attn.q_norm": "attn/_query_norm",
  "self_attn.k_norm": "attn/_key_norm",
}


def main() -> None:
  """Runs the cases, plainly and compiled."""
  given = arguments()
  torch.backends.cuda.matmul.allow_tf32 = False
  device = "cuda" if torch.cuda.is_available() else "cpu"
  results = Results(sys.argv[2], given["budget"])
  for variant in ("", *given["variants"]):
    for row in given["cases"]:
      case = Case(*row)
      sizes = given["sizes"][case.size]
      results.add(
        case,
        variant,
        functools.partial(_measure, case, variant, sizes, device),
      )


@torch.inference_mode()
def _measure(
  case: Case, variant: str, sizes: Mapping[str, Any], device: str
) -> dict[str, Any]:
  if device == "cuda":
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
  model = build(sizes, getattr(torch, case.dtype), device)
  fill(model, sizes)
  if variant == "compiled":
    for layer in model.layers:
      layer.forward = torch.compile(layer.forward, dynamic=False)
  seen = collect(model)
  ids = torch.tensor(sizes["tokens"][case.name], device=device)

  def call() -> list[torch.Tensor]:
    seen.clear()
    model(input_ids=ids, use_cache=False)
    return list(seen)

  def wait(_: Any) -> None:
    if device == "cuda":
      torch.cuda.synchronize()

  start = time.perf_counter()
  wait(call())
  compiling = time.perf_counter() - start
  seconds = repeat(call, wait)
  last = call()[-1]
  cuda = device == "cuda"
  return {
    "seconds": seconds,
    "compiling": compiling,
    "check": float(torch.linalg.vector_norm(last.float())),
    "memory": torch.cuda.max_memory_allocated() if cuda else 0,
    "device": torch.cuda.get_device_name() if cuda else "cpu",
    "versions": {
      "torch": torch.__version__,
      "transformers": transformers.__version__,
    },
  }


def build(sizes: Mapping[str, Any], dtype: torch.dtype, device: str) -> Any:
  """The text model without a head, its weights not yet those wanted."""
  layers = range(sizes["num_layers"])
  factor = sizes["rope_factor"]
  wide = {"rope_type": "linear", "factor": float(factor), "rope_theta": 1e6}
  plain = {"rope_type": "default", "rope_theta": 1e6}
  config = transformers.Gemma3TextConfig(
    vocab_size=sizes["vocabulary"],
    hidden_size=sizes["d_model"],
    intermediate_size=sizes["d_ff"],
    num_hidden_layers=sizes["num_layers"],
    num_attention_heads=sizes["num_heads"],
    num_key_value_heads=sizes["num_kv_heads"],
    head_dim=sizes["head_dim"],
    query_pre_attn_scalar=int(sizes["query_scalar"]),
    sliding_window=sizes["window"],
    rope_parameters={
      "full_attention": plain if factor == 1 else wide,
      "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
    layer_types=[
      "full_attention" if is_global(i, sizes["period"]) else "sliding_attention"
      for i in layers
    ],
  )
  with torch.device(device):
    model = transformers.AutoModel.from_config(
      config, dtype=dtype, attn_implementation="sdpa"
    )
  return model.to(device).eval().requires_grad_(False)


def fill(model: Any, sizes: Mapping[str, Any]) -> None:
  """Puts the hashed weights in."""
  device = model.embed_tokens.weight.device

  def tensor(name: str) -> torch.Tensor:
    return hashed(name, tuple(sizes["shapes"][name]), device)

  def put(weight: torch.Tensor, value: torch.Tensor) -> None:
    weight.copy_(value.reshape(weight.shape))

  put(model.embed_tokens.weight, tensor("embedder/input_embedding"))
  put(model.norm.weight, tensor("final_norm/scale"))
  for i, layer in enumerate(model.layers):
    for theirs, ours in _NORMS.items():
      module = layer.get_submodule(theirs)
      put(module.weight, tensor(f"layer_{i}/{ours}/scale"))
    attention, mlp = layer.self_attn, layer.mlp
    query = tensor(f"layer_{i}/attn/q_einsum/w").permute(0, 2, 1)
    key, value = tensor(f"layer_{i}/attn/kv_einsum/w").permute(0, 1, 3, 2)
    out = tensor(f"layer_{i}/attn/attn_vec_einsum/w")
    put(attention.q_proj.weight, query)
    put(attention.k_proj.weight, key)
    put(attention.v_proj.weight, value)
    put(attention.o_proj.weight, out.reshape(-1, out.shape[-1]).T)
    gate, up = tensor(f"layer_{i}/mlp/gating_einsum")
    put(mlp.gate_proj.weight, gate)
    put(mlp.up_proj.weight, up)
    put(mlp.down_proj.weight, tensor(f"layer_{i}/mlp/linear").T)


def hashed(name: str, shape: tuple[int, ...], device: Any) -> torch.Tensor:
  """The values of one canonical tensor (see `gpu_cases`)."""
  x = torch.arange(math.prod(shape), dtype=torch.int64, device=device)
  x = (x * FIRST + salt_of(name)) & BITS
  x = ((x ^ (x >> 16)) * SECOND) & BITS
  x = x ^ (x >> 13)
  value = (x >> 8).to(torch.float32) * 2.0**-24 - 0.5
  factor = torch.tensor(factor_of(name, shape), dtype=torch.float32)
  return (value * factor.to(device)).reshape(shape)


def collect(model: Any) -> list[torch.Tensor]:
  """A list that a pass fills with every residual stream."""
  seen: list[torch.Tensor] = []

  def hook(_module: Any, _args: Any, output: Any) -> None:
    seen.append(output[0] if isinstance(output, tuple) else output)

  for layer in model.layers:
    layer.register_forward_hook(hook)
  return seen


if __name__ == "__main__":
  main()
