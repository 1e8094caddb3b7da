"""Explanations as JSON: complete, finite, and readable back."""

import base64
import json
import pathlib

import numpy as np
import pytest

from gemma_scope.viz import payload


def test_a_file_holds_everything(explanation):
  text = json.dumps(explanation.to_dict(), allow_nan=False)
  found = json.loads(text)
  assert found["format"] == "gemma-scope/explanation"
  assert found["prompt"] == explanation.prompt
  assert found["target"]["against_text"] == " John"
  assert [t["text"] for t in found["tokens"]][:2] == ["<bos>", "When"]
  first = found["attributions"][0]
  np.testing.assert_allclose(
    first["scores"], explanation.attributions[0].scores, rtol=1e-6
  )
  assert first["residual"] == pytest.approx(0.012, abs=1e-6)
  np.testing.assert_allclose(
    found["lens"]["target_probs"], explanation.lens.target_probs, rtol=1e-6
  )
  np.testing.assert_allclose(
    found["components"]["heads"], explanation.components.heads, rtol=1e-6
  )
  assert found["manifest"]["weights"]["format"] == "gguf"


def read_attention(packed):
  """What a reader of the file does with the entry."""
  weights = np.frombuffer(base64.b64decode(packed["weights"]), np.uint8)
  probabilities = (weights.reshape(packed["shape"]) / 255) ** 2
  if packed["keys"] is None:
    return probabilities, None
  keys = np.frombuffer(base64.b64decode(packed["keys"]), "<u2")
  return probabilities, keys.reshape(packed["shape"])


@pytest.mark.parametrize("name", ["explanation", "long_explanation"])
def test_attention_is_read_back_from_its_bytes(name, request):
  attention = request.getfixturevalue(name).attention
  probabilities, keys = read_attention(payload.pack(attention))
  np.testing.assert_allclose(probabilities, attention.probabilities, atol=1e-6)
  if name == "long_explanation":
    np.testing.assert_array_equal(keys, attention.keys)
  else:
    assert keys is None


def test_plain_values():
  found = payload.to_plain(
    {
      1: np.float32(0.1),
      "nan": [float("nan"), np.inf],
      "array": np.array([[1, 2]], np.int32),
      "flag": np.bool_(True),
      "half": "a\ud83d",
      "path": pathlib.PurePosixPath("x/y"),
      "none": None,
    }
  )
  assert found == {
    "1": 0.1,
    "nan": [None, None],
    "array": [[1, 2]],
    "flag": True,
    "half": "a\ufffd",
    "path": "x/y",
    "none": None,
  }


@pytest.mark.parametrize(
  ("label", "kind", "layer"),
  [
    ("embed", "embed", None),
    ("attn_write[3]", "attn_write", 3),
    ("mlp_write[12]", "mlp_write", 12),
    ("of another kind", "of another kind", None),
  ],
)
def test_addresses(label, kind, layer):
  assert payload.address(label) == {"kind": kind, "layer": layer}


def test_the_report_gets_each_word_once(explanation):
  lens = payload.report_data(explanation)["lens"]
  assert len(set(lens["words"])) == len(lens["words"])
  assert lens["words"][lens["top"][-1][-1]] == "·Mary"
