"""Sentences say what the numbers say, and no more."""

import dataclasses

import numpy as np
import pytest

from gemma_scope.analysis import explanation as parts
from gemma_scope.viz import wording


def tokens(*texts):
  return tuple(
    parts.TokenInfo(i, text, 0, 0, special=text == "<bos>")
    for i, text in enumerate(texts)
  )


def evidence(explanation, texts, scores):
  changed = dataclasses.replace(
    explanation,
    tokens=tokens(*texts),
    attributions=(),
    attention=None,
    target=dataclasses.replace(explanation.target, position=0),
    flow=None,
    features=None,
    lens=dataclasses.replace(
      explanation.lens,
      positions=(0,),
      **{
        name: getattr(explanation.lens, name)[:, :1]
        for name in ("top_ids", "top_probs", "target_probs", "target_ranks")
      },
      top_texts=tuple(row[:1] for row in explanation.lens.top_texts),
    ),
  )
  attribution = parts.TokenAttribution("m", "M", "d", np.array(scores))
  return " ".join(wording.evidence_sentences(changed, attribution))


def test_prediction_and_question(explanation):
  assert wording.prediction_sentence(explanation) == (
    "Gemma 3 270M continues with “Mary” (63.1%), ahead of “the” (6.4%)."
  )
  assert wording.question_sentence(explanation.target) == (
    "Explained here is the logit of “Mary” minus that of “John”: +2.93. "
    "“Mary” is the top token, at 63.1%; “John” has 3.4%."
  )
  lower = dataclasses.replace(
    explanation.target, rank=2, against_id=None, against_text=None
  )
  assert "“Mary” is number 3 of the vocabulary" in (
    wording.question_sentence(lower)
  )


def test_most_is_said_of_half_or_more(explanation):
  said = evidence(explanation, ["a", " b", " c"], [3.0, 1.0, 0.5])
  assert said.startswith("Most of the evidence comes from “a” (+3.00), 66.7%")
  assert "“b”" not in said
  spread = evidence(explanation, list("abcdefgh"), [1.0] * 8)
  assert spread.startswith("The evidence is spread over many tokens")
  assert "together 37.5%" in spread


def test_control_tokens_are_no_evidence(explanation):
  said = evidence(explanation, ["<bos>", "a"], [90.0, 1.0])
  assert "bos" not in said
  assert "“a” (+1.00), 100.0%" in said


def test_notable_opposition_is_named(explanation):
  said = evidence(explanation, ["a", "b"], [1.0, -0.9])
  assert said.endswith("The strongest against it is “b” (−0.90).")
  quiet = evidence(explanation, ["a", "b"], [1.0, -0.1])
  assert "against" not in quiet
  none = evidence(explanation, ["a", "b"], [-1.0, -0.1])
  assert none == "By this method no token of the prompt speaks for it."


def test_repeated_tokens_are_counted():
  three = tokens(" John", " and", " John", "John")
  assert wording.name_token(three, 1) == "“and”"
  assert wording.name_token(three, 2) == "the 2nd “John”"


@pytest.mark.parametrize(
  ("number", "said"),
  [(1, "1st"), (2, "2nd"), (3, "3rd"), (11, "11th"), (22, "22nd"), (4, "4th")],
)
def test_ordinals(number, said):
  assert wording.ordinal(number) == said


def test_quotes_keep_what_is_only_space():
  assert wording.quoted(" Mary") == "“Mary”"
  assert wording.quoted("  ") == "“··”"
  assert wording.quoted("\n") == "“↵”"


def test_strongest_components_count_by_magnitude():
  components = parts.ComponentScores(
    ("embed", "attn_write[0]", "mlp_write[0]"), np.array([0.1, -2, 1]), -0.9
  )
  assert wording.strongest_components(components, 2) == [
    ("attn_write[0]", -2.0),
    ("mlp_write[0]", 1.0),
  ]
  assert "sum to −0.900; the model's own number is −0.900" in (
    wording.component_sentence(components)
  )


def test_completeness(explanation):
  first, second = explanation.attributions
  assert "(residual +0.012)" in wording.completeness_sentence(first)
  assert "promises no total" in wording.completeness_sentence(second)


def test_areas_stand_beside_those_of_random_orders(explanation):
  first, second = explanation.attributions
  assert wording.area_sentence(first, explanation.random_areas) == (
    "Taking tokens away, least against most relevant first: area +1.87 "
    "(random orders −0.31 to +0.44)."
  )
  assert wording.area_sentence(second, ()) is None


def test_what_a_flow_adds_up_to(explanation):
  text = wording.flow_sentence(explanation.flow)
  assert text.startswith("AttnLRP promises no sum: the rows run from ")
  assert text.endswith("+2.930 at resid_post[17], of +2.930.")
  values = np.full((19, 15), 2.93 / 15)
  values[3, 0] += 0.25
  kept = dataclasses.replace(explanation.flow, conserves=True, values=values)
  assert wording.flow_sentence(kept) == (
    "Every row sums to the target +2.930; the largest residual is −0.25."
  )
