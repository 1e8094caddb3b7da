"""What an explanation says in plain words.

Sentences for the head of the report and the terminal, built from the numbers
by fixed rules: no sentence claims more than a score does. Draws nothing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gemma_scope import display
from gemma_scope.analysis import explanation as parts
from gemma_scope.analysis.flow import RelevanceFlow

if TYPE_CHECKING:
  from gemma_scope.viz.explanation import Explanation

_MOST = 0.5  # the share of the positive scores that earns the word "most"
_NAMED = 3  # how many tokens or components one sentence names
_NOTABLE = 0.25  # of the strongest: worth a sentence of its own


def quoted(text: str) -> str:
  """A token in quotes; spaces around it are dropped unless they are all."""
  return f"“{display.visible(text.strip(' ') or text, spaces=True)}”"


def target_phrase(target: parts.TargetInfo) -> str:
  """What is explained: "the logit of “a”" or "… minus that of “b”"."""
  return logit_phrase(target.text, target.against_text)


def logit_phrase(text: str, against: str | None) -> str:
  """A logit or a difference of logits, by their tokens."""
  phrase = f"the logit of {quoted(text)}"
  if against is None:
    return phrase
  return f"{phrase} minus that of {quoted(against)}"


def prediction_sentence(explanation: "Explanation") -> str:
  """Which token the model continues with, and what comes next."""
  if not explanation.predictions:
    return f"{explanation.model} was not asked for a prediction."
  first, *others = explanation.predictions
  sentence = (
    f"{explanation.model} continues with {quoted(first.text)} "
    f"({display.percent(first.prob)})"
  )
  if others:
    runner = others[0]
    sentence += (
      f", ahead of {quoted(runner.text)} ({display.percent(runner.prob)})"
    )
  return sentence + "."


def question_sentence(target: parts.TargetInfo) -> str:
  """What the page explains, with its value and rank."""
  rank = "the top token"
  if target.rank > 0:
    rank = f"number {target.rank + 1} of the vocabulary"
  sentence = (
    f"Explained here is {target_phrase(target)}: {display.signed(target.value)}"
    f". {quoted(target.text)} is {rank}, at {display.percent(target.prob)}"
  )
  if target.against_text is not None and target.against_prob is not None:
    sentence += (
      f"; {quoted(target.against_text)} has "
      f"{display.percent(target.against_prob)}"
    )
  return sentence + "."


def evidence_sentences(
  explanation: "Explanation", attribution: parts.TokenAttribution
) -> tuple[str, ...]:
  """Where the evidence lies according to one method, control tokens apart."""
  words = [i for i, t in enumerate(explanation.tokens) if not t.special]
  scores = np.asarray(attribution.scores, np.float64)
  order = sorted(words, key=lambda i: -scores[i])
  speaks = [i for i in order if scores[i] > 0]
  if not speaks:
    return ("By this method no token of the prompt speaks for it.",)
  support = _support(explanation.tokens, scores, speaks)
  sentences = [f"{support} (by {attribution.title})."]
  worst = order[-1]
  if scores[worst] < -_NOTABLE * scores[speaks[0]]:
    named = name_token(explanation.tokens, worst)
    sentences.append(
      f"The strongest against it is {named} ({display.signed(scores[worst])})."
    )
  return tuple(sentences)


def _support(
  tokens: Sequence[parts.TokenInfo], scores: np.ndarray, speaks: list[int]
) -> str:
  everything = scores[speaks].sum()
  shares = np.cumsum(scores[speaks]) / everything
  enough = int(np.searchsorted(shares, _MOST - 1e-9)) + 1
  named = speaks[: min(enough, _NAMED)]
  listed = join_words(
    [f"{name_token(tokens, i)} ({display.signed(scores[i])})" for i in named]
  )
  if enough > _NAMED:
    return (
      "The evidence is spread over many tokens; the strongest are "
      f"{listed}, together {display.percent(shares[_NAMED - 1])} of the "
      "scores for it"
    )
  return (
    f"Most of the evidence comes from {listed}, "
    f"{display.percent(shares[enough - 1])} of the scores for it"
  )


def name_token(tokens: Sequence[parts.TokenInfo], index: int) -> str:
  """A token in quotes, with "the 2nd" in front where it occurs again."""
  text = tokens[index].text.strip(" ")
  same = [i for i, t in enumerate(tokens) if t.text.strip(" ") == text]
  name = quoted(tokens[index].text)
  if len(same) == 1:
    return name
  return f"the {ordinal(same.index(index) + 1)} {name}"


def strongest_components(
  components: parts.ComponentScores, count: int
) -> list[tuple[str, float]]:
  """The `count` components with the largest magnitude, as (label, value)."""
  order = np.argsort(-np.abs(components.values), kind="stable")[:count]
  return [(components.labels[i], float(components.values[i])) for i in order]


def component_sentence(components: parts.ComponentScores) -> str:
  """Which components write most towards the target."""
  listed = join_words(
    [
      f"{label} ({display.signed(value)})"
      for label, value in strongest_components(components, _NAMED)
    ]
  )
  return (
    f"The largest direct contributions are {listed}. All "
    f"{len(components.labels)} components sum to "
    f"{display.signed(components.sum, 3)}; the model's own number is "
    f"{display.signed(components.total, 3)}."
  )


def completeness_sentence(attribution: parts.TokenAttribution) -> str:
  """What the scores sum to, and by how much they miss what they ought to."""
  if attribution.total is None or attribution.residual is None:
    return (
      f"Sums to {display.signed(attribution.sum)}; "
      "this method promises no total."
    )
  return (
    f"Sums to {display.signed(attribution.sum)} of "
    f"{display.signed(attribution.total)} "
    f"(residual {display.signed(attribution.residual, 3)})."
  )


def area_sentence(
  attribution: parts.TokenAttribution, random: Sequence[float]
) -> str | None:
  """How the scores fare when tokens are taken away in their order."""
  if attribution.area is None:
    return None
  low, high = min(random, default=0.0), max(random, default=0.0)
  return (
    "Taking tokens away, least against most relevant first: area "
    f"{display.signed(attribution.area)} "
    f"(random orders {display.signed(low)} to {display.signed(high)})."
  )


def flow_sentence(flow: RelevanceFlow) -> str:
  """What the relevance of the layers adds up to."""
  sums = flow.sums
  worst = int(np.abs(flow.residuals).argmax())
  if flow.conserves:
    return (
      f"Every row sums to the target {display.signed(flow.target, 3)}; the "
      f"largest residual is {display.signed(flow.residuals[worst], 2)}."
    )
  return (
    f"{flow.title} promises no sum: the rows run from "
    f"{display.signed(sums[0], 3)} at {flow.labels[0]} to "
    f"{display.signed(sums[-1], 3)} at {flow.labels[-1]}, of "
    f"{display.signed(flow.target, 3)}."
  )


def join_words(words: Sequence[str]) -> str:
  """Joins with commas and a last "and"."""
  if len(words) < 2:
    return "".join(words)
  return f"{', '.join(words[:-1])} and {words[-1]}"


def ordinal(number: int) -> str:
  """1st, 2nd, 3rd, 4th, 11th, 21st."""
  teen = 10 <= number % 100 <= 20
  ending = "th" if teen else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
  return f"{number}{ending}"


def patching_sentence(
  measured: str, clean: float, corrupt: float, *, noising: bool
) -> str:
  """What a patching sweep measures, and which way things were put."""
  way = "One activation of the clean prompt at a time is put into the run of "
  way += "the corrupt one: what restores the answer?"
  if noising:
    way = "One activation of the corrupt prompt at a time is put into the run "
    way += "of the clean one: what breaks the answer?"
  return (
    f"Measured is {measured}: {display.signed(clean)} after the clean prompt, "
    f"{display.signed(corrupt)} after the corrupt one. {way}"
  )
