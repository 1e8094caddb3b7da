"""Hugging Face transformers: forward hooks, autograd, generate."""

from collections.abc import Mapping
from typing import Any

from benchmarks.protocol import Case, limit_threads, serve

TARGET = 506  # " the"


def load(folder: str):
  """The model in float32 with the attention that the library chooses."""
  import torch
  from transformers import Gemma3ForCausalLM

  lm = Gemma3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
  return lm.eval().requires_grad_(False)


def _load(given: Mapping[str, Any]) -> Case:
  from transformers import Gemma3ForCausalLM  # noqa: F401  not timed

  def call():
    lm = load(given["folder"])
    for weight in lm.parameters():
      # The file is mapped: without a touch of every page nothing is read.
      weight.view(-1)[::1024].sum()
    return lm

  return Case(
    call,
    lambda lm: float(lm.model.embed_tokens.weight[2].sum()),
  )


def _first_logits(given: Mapping[str, Any]) -> Case:
  def call():
    import torch

    lm = load(given["folder"])
    with torch.inference_mode():
      tokens = torch.tensor(given["tokens"])
      return lm(tokens, use_cache=False, logits_to_keep=1).logits

  return Case(call, lambda logits: float(logits.max()))


def _capture(given: Mapping[str, Any]) -> Case:
  import torch

  lm = load(given["folder"])
  tokens = torch.tensor(given["tokens"])
  seen: dict[int, Any] = {}

  def keep(index: int):
    def hook(_module, _args, output):
      seen[index] = output[0] if isinstance(output, tuple) else output

    return hook

  for i, layer in enumerate(lm.model.layers):
    layer.register_forward_hook(keep(i))

  def call():
    seen.clear()
    with torch.inference_mode():
      lm.model(tokens, use_cache=False)
    return dict(seen)

  return Case(call, lambda found: float(found[17].norm()))


class _Enough(Exception):
  """Thrown by a hook: no later layer is wanted."""


def _layer(given: Mapping[str, Any]) -> Case:
  import torch

  lm = load(given["folder"])
  tokens = torch.tensor(given["tokens"])
  seen = []

  def hook(_module, _args, output):
    seen.append(output[0] if isinstance(output, tuple) else output)
    raise _Enough

  lm.model.layers[given["layer"]].register_forward_hook(hook)

  def call():
    seen.clear()
    with torch.inference_mode():
      try:
        lm.model(tokens, use_cache=False)
      except _Enough:
        return seen[0]

  return Case(call, lambda found: float(found.norm()))


def _input_x_gradient(given: Mapping[str, Any]) -> Case:
  import torch

  lm = load(given["folder"])
  tokens = torch.tensor(given["tokens"])

  def call():
    leaf = lm.model.embed_tokens(tokens).detach().requires_grad_()
    output = lm(inputs_embeds=leaf, use_cache=False, logits_to_keep=1)
    (gradient,) = torch.autograd.grad(output.logits[:, -1, TARGET].sum(), leaf)
    return (gradient * leaf).detach()

  return Case(call, lambda found: float(found.sum(-1).abs().sum()))


def _generate(given: Mapping[str, Any]) -> Case:
  import torch

  lm = load(given["folder"])
  tokens = torch.tensor(given["tokens"])
  count = given["new_tokens"]

  def call():
    return lm.generate(
      tokens,
      attention_mask=torch.ones_like(tokens),
      max_new_tokens=count,
      do_sample=False,
      use_cache=True,
    )

  def check(made) -> float:
    new = made[0, tokens.shape[1] :]
    assert len(new) == count, "generation stopped early"
    return float(new.sum())

  return Case(call, check)


CASES = {
  "load": _load,
  "first_logits": _first_logits,
  "capture": _capture,
  "layer": _layer,
  "input_x_gradient": _input_x_gradient,
  "generate": _generate,
}

if __name__ == "__main__":
  limit_threads()
  serve(CASES, ("torch", "transformers"))
