"""What comes next: the most probable tokens after each prompt."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from gemma_scope.activations.run import capture
from gemma_scope.activations.tokens import Input, to_tokens
from gemma_scope.attribution.rows import to_rows
from gemma_scope.display import predictions_html
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.model.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Predicted:
  """One candidate for the next token.

  Attributes:
    id: Its vocabulary id.
    text: Its text.
    logit: Its logit.
    prob: Its probability, 0 to 1.
  """

  id: int
  text: str
  logit: float
  prob: float


@dataclasses.dataclass(frozen=True)
class Predictions:
  """The most probable next tokens of each prompt.

  Attributes:
    rows: [batch][k] candidates, most probable first.
  """

  rows: tuple[tuple[Predicted, ...], ...]

  def _repr_html_(self) -> str:
    return "".join(
      predictions_html([(p.text, p.prob) for p in row], title="Next token")
      for row in self.rows
    )


def predict(
  lm: LanguageModel, given: Input, k: int = 10, *, position: int = -1
) -> Predictions:
  """The k most probable tokens after each prompt.

  Args:
    lm: The model.
    given: Text, texts, or token ids.
    k: How many.
    position: Column whose next token is meant; negative counts from each
      row's last token.
  """
  batch = to_tokens(lm, given)
  columns = np.asarray(to_rows(batch, position).columns)
  rows = []
  for i, column in enumerate(columns):
    acts = capture(lm, batch.row(i), ["logits"], logits_at=int(column))
    logits = np.asarray(acts["logits"].data_array)[0, 0]
    rows.append(top_tokens(lm.tokenizer, logits, k))
  return Predictions(tuple(rows))


def top_tokens(
  tokenizer: Tokenizer, logits: Float[Array, " vocabulary"] | np.ndarray, k: int
) -> tuple[Predicted, ...]:
  """The k most probable tokens of one row of logits."""
  probs = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
  values = np.asarray(logits)
  top = np.argsort(-values)[:k]
  return tuple(
    Predicted(int(i), text, float(values[i]), float(probs[i]))
    for i, text in zip(top, tokenizer.pieces(top))
  )
