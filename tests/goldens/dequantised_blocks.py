"""Makes dequantised_blocks.npz: random blocks and what `gguf` makes of them.

Run in an environment with the `gguf` package (0.19.0 made the stored file):
    python tests/goldens/dequantised_blocks.py
For every type: {type}_blocks uint8 [blocks, bytes] and {type}_values float32.
"""

import pathlib

import gguf
from gguf import quants
import numpy as np

BLOCKS = 24
# Where the float16 scales lie in a block; the rest is any bits.
SCALES = {
  "Q4_0": (0,),
  "Q5_0": (0,),
  "Q8_0": (0,),
  "Q4_K": (0, 2),
  "Q5_K": (0, 2),
  "Q6_K": (208,),
}


def main():
  rng = np.random.default_rng(2024)
  arrays = {}
  for name in (*SCALES, "F32", "F16", "BF16"):
    kind = gguf.GGMLQuantizationType[name]
    _, nbytes = gguf.GGML_QUANT_SIZES[kind]
    if name in SCALES:
      blocks = rng.integers(0, 256, (BLOCKS, nbytes), np.uint8)
      for at in SCALES[name]:
        scale = rng.standard_normal(BLOCKS).astype(np.float16)
        blocks[:, at : at + 2] = scale[:, None].view(np.uint8)
    else:
      values = rng.standard_normal((BLOCKS, 8)).astype(np.float32)
      halves = values.astype(np.float16).view(np.uint8)
      tops = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
      raw = {"F32": values.view(np.uint8), "F16": halves, "BF16": tops}
      blocks = raw[name]
    arrays[f"{name}_blocks"] = blocks
    arrays[f"{name}_values"] = quants.dequantize(blocks, kind)
    assert np.isfinite(arrays[f"{name}_values"]).all(), name
  here = pathlib.Path(__file__).parent
  np.savez_compressed(here / "dequantised_blocks.npz", **arrays)


if __name__ == "__main__":
  main()
