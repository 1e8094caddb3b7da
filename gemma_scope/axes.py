"""Every axis name of the library, once, with its meaning.

Arrays at public borders are Penzai `NamedArray`s whose axes carry these names.
"""

BATCH = "batch"  # prompts or packed rows
SEQ = "seq"  # token positions (queries, in attention)
KV_SEQ = "kv_seq"  # token positions that are attended to
EMBEDDING = "embedding"  # d_model, the width of the residual stream
HEADS = "heads"  # query heads
KV_HEADS = "kv_heads"  # key/value heads, each shared by heads/kv_heads queries
PROJECTION = "projection"  # width of one head (head_dim)
NEURONS = "neurons"  # d_ff, the hidden units of the feed-forward
GATE_UP = "gate_up"  # the two products of a gated feed-forward: gate, up
KEY_VALUE = "key_value"  # the two products of a key/value head: key, value
VOCABULARY = "vocabulary"  # token ids
LAYER = "layer"  # decoder layers, or periods of layers in a scanned stack
LATENTS = "latents"  # entries of a sparse dictionary
STEPS = "steps"  # points along an integration path
COMPONENT = "component"  # writers into the residual stream
READER = "reader"  # readers of the residual stream
INPUT = "input"  # a dictionary's weights: the vector it reads
OUTPUT = "output"  # a dictionary's weights: the vector it rebuilds

GLOSSARY: dict[str, str] = {
  BATCH: "prompts or packed rows",
  SEQ: "token positions; in attention, the position that looks",
  KV_SEQ: "token positions that are looked at",
  EMBEDDING: "the residual stream (d_model)",
  HEADS: "query heads",
  KV_HEADS: "key/value heads; each serves heads / kv_heads query heads",
  PROJECTION: "the width of one head (head_dim)",
  NEURONS: "hidden units of the feed-forward (d_ff)",
  GATE_UP: "the gate and the up product of a gated feed-forward",
  KEY_VALUE: "the key and the value of one key/value head",
  VOCABULARY: "token ids",
  LAYER: "decoder layers, or whole periods of them in a scanned stack",
  LATENTS: "entries of a sparse dictionary",
  STEPS: "points along an integration path",
  COMPONENT: "writers into the residual stream",
  READER: "what reads the residual stream: heads, feed-forwards, logits",
  INPUT: "the vector that a dictionary reads, in its weights",
  OUTPUT: "the vector that a dictionary rebuilds, in its weights",
}
