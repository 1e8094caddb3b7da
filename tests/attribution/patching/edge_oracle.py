"""A slow Gemma 3 in which every reader has its own copy of the stream.

NumPy, float64, one sequence. A change can be added to what one reader sees and
nobody else, which is what patching an edge means. Made of the parts of
`gemma_scope.testing.oracle`.
"""

import numpy as np

from gemma_scope.testing import oracle
from gemma_scope.weights.checkpoint import read
from tests.attribution.conftest import STEP


class EdgeOracle:
  """One model and one prompt.

  Args:
    tensors: Canonical name -> tensor.
    config: The model's shape.
    ids: [seq] token ids.
  """

  def __init__(self, tensors, config, ids):
    self.w = {n: np.asarray(read(t), np.float64) for n, t in tensors.items()}
    self.config, self.ids = config, ids

  def run(self, changes=None):
    """The final norm's logits, and what every writer wrote.

    Args:
      changes: Label of a reader -> [seq, embedding] what is added to the
        stream that it alone sees.

    Returns:
      [seq, vocabulary] logits, and label of a writer -> [seq, embedding].
    """
    changes, c = changes or {}, self.config
    table = self.w["embedder/input_embedding"]
    x = table[self.ids] * np.sqrt(c.d_model)
    written = {"embed": x}
    for layer in range(c.num_layers):

      def seen(label, x=x, layer=layer):
        name, _, head = label.partition(".")
        full = f"{name}[{layer}]" + (f".{head}" if head else "")
        return x + changes.get(full, 0.0)

      heads = self._attention(layer, seen)
      written |= {f"attn_write[{layer}].{n}": h for n, h in enumerate(heads)}
      x = x + sum(heads)
      inside = x + changes.get(f"mlp_in[{layer}]", 0.0)
      written[f"mlp_write[{layer}]"] = self._feedforward(layer, inside)
      x = x + written[f"mlp_write[{layer}]"]
    last = x + changes.get("final_norm", 0.0)
    return oracle.rms_norm(last, self.w["final_norm/scale"]) @ table.T, written

  def _attention(self, layer, seen):
    """What each head adds to the stream, the post-norm's scale shared."""
    c, w = self.config, self._layer(layer)
    everywhere = (layer + 1) % oracle.PERIOD == 0
    base = oracle.GLOBAL_BASE if everywhere else oracle.LOCAL_BASE
    factor = c.rope_factor if everywhere else 1.0
    window = None if everywhere else c.window
    group = c.num_heads // c.num_kv_heads
    normed = lambda label: oracle.rms_norm(  # noqa: E731
      seen(label), w["pre_attention_norm/scale"]
    )
    turned = lambda x, name: oracle.rope(  # noqa: E731
      oracle.rms_norm(x, w[f"attn/_{name}_norm/scale"]), base, factor
    )
    raw = []
    for n in range(c.num_heads):
      k = n // group
      query = turned(normed(f"query.{n}") @ w["attn/q_einsum/w"][n], "query")
      key = turned(normed(f"key.{k}") @ w["attn/kv_einsum/w"][0][k], "key")
      value = normed(f"value.{k}") @ w["attn/kv_einsum/w"][1][k]
      pattern = oracle.head_pattern(query * c.query_scalar**-0.5, key, window)
      raw.append(pattern @ value @ w["attn/attn_vec_einsum/w"][n])
    whole = sum(raw)
    size = np.sqrt((whole**2).mean(-1, keepdims=True) + oracle.EPSILON)
    return [r / size * (1 + w["post_attention_norm/scale"]) for r in raw]

  def _feedforward(self, layer, x):
    w = self._layer(layer)
    h = oracle.rms_norm(x, w["pre_ffw_norm/scale"])
    gate, up = w["mlp/gating_einsum"]
    raw = (oracle.gelu(h @ gate.T) * (h @ up.T)) @ w["mlp/linear"]
    return oracle.rms_norm(raw, w["post_ffw_norm/scale"])

  def _layer(self, layer):
    prefix = f"layer_{layer}/"
    return {
      n.removeprefix(prefix): v
      for n, v in self.w.items()
      if n.startswith(prefix)
    }


def edge_slope(base, reader, change):
  """The slope of logit 7 - logit 9 along a change that one reader sees."""

  def moved(t):
    logits, _ = base.run({reader: t * change})
    return logits[-1, 7] - logits[-1, 9]

  return (moved(STEP) - moved(-STEP)) / (2 * STEP)
