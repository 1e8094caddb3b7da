"""`gs.explain`: one prompt, one target, every view of it, as one value.

One forward pass fills the predictions, the lens, the components and the
attention patterns; each attribution method adds its own passes. It computes
nothing itself: it asks `analysis` and `attribution` and puts the answers
together. Where the starter suite is of the model, its latents are read from the
same passes.
"""

from collections.abc import Sequence
import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gemma_scope import axes
from gemma_scope.activations.run import Capture, capture
from gemma_scope.activations.tokens import to_tokens
from gemma_scope.analysis import direct, lens
from gemma_scope.analysis import explanation as parts
from gemma_scope.analysis.predict import top_tokens
from gemma_scope.attribution.objectives import Target, logit, logit_difference
from gemma_scope.dictionaries.suite import Suite, starter_of
from gemma_scope.errors import ConfigError, TextError
from gemma_scope.manifest import make_manifest
from gemma_scope.model.chat import chat_ids
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site
from gemma_scope.viz.attributions import (
  Progress,
  PromptAttributions,
  attribute_prompt,
)
from gemma_scope.viz.explanation import Explanation
from gemma_scope.viz.features import (
  SITES,
  Features,
  Question,
  prompt_features,
  suite_sites,
)
from gemma_scope.viz.methods import DEFAULT_METHODS, METHOD_TEXTS

LENS_COLUMNS = 128  # of longer prompts the lens reads the last ones
PATTERN_TOKENS = 1024  # of longer prompts no patterns: 18 x 4 x T x T floats
PREDICTIONS = 10

Ends = tuple[int, int | None]  # the token explained, and its rival


def explain(
  lm: LanguageModel,
  prompt: str,
  *,
  target: str | int | None = None,
  against: str | int | None = None,
  chat: bool | str = False,
  methods: Sequence[str] | None = None,
  features: bool = True,
  progress: Progress | None = None,
) -> Explanation:
  """Explains why a model continues a prompt as it does.

  Args:
    lm: The model.
    prompt: The text; BOS is added.
    target: The token explained (text or id); by default the most probable.
    against: A token to compare with: explains the difference of logits.
    chat: Whether it is a user's turn (-it models); a text is the system's.
    methods: Attribution methods; by default `DEFAULT_METHODS`.
    features: Whether to show latents of the starter suite, if it is of this.
    progress: Called with what is being done.

  Returns:
    A value that displays itself: notebook, page (`to_html`), JSON (`to_dict`).

  Raises:
    GemmaScopeError: If the prompt, a token or an option cannot be used.
  """
  tell, start = progress or _silent, time.perf_counter()
  chosen = _check_methods(methods)
  ids = _prompt_ids(lm, prompt, chat)
  suite, note = _suite(lm, features)
  tell("Running the model")
  acts = _capture(lm, ids, () if suite is None else SITES)
  logits = np.asarray(acts["logits"].data_array)[0, -1]
  ends = _ends(lm, logits, target, against)
  objective = _objective(*ends)
  streams = suite_sites(suite, lm.config.num_layers) if suite else ()
  said = attribute_prompt(lm, acts.tokens, objective, chosen, tell, streams)
  tokens = _tokens(lm, ids)
  config = {"prompt": prompt, "target": target, "against": against}
  config |= {"chat": chat, "methods": chosen, "features": features}
  found = _features(lm, suite, acts, _question(tokens, ends, said), tell)
  return Explanation(
    prompt=prompt,
    model=lm.title,
    target=_target_info(lm, logits, ends, len(ids)),
    tokens=tokens,
    predictions=_predictions(lm, logits),
    attributions=said.attributions,
    random_areas=said.random,
    flow=said.flow,
    lens=_lens_grid(lm, acts, ends[0], tell),
    components=_components(lm, acts, objective, tell),
    attention=_attention(lm, acts),
    manifest=_manifest(lm, config, time.perf_counter() - start),
    features=found,
    features_note=note,
  )


def _suite(lm: LanguageModel, wanted: bool) -> tuple[Suite | None, str]:
  """The suite of this model, or None and why there is none."""
  if not wanted:
    return None, "Features were not asked for."
  suite = starter_of(lm.name)
  if suite is None:
    return None, f"No features: the starter suite has none of {lm.title}."
  return suite, ""


def _manifest(
  lm: LanguageModel, config: dict[str, Any], seconds: float
) -> dict[str, Any]:
  config = {**config, "dtype": str(lm.dtype), "seconds": round(seconds, 2)}
  return make_manifest(config, model=lm.name, source=lm.source).to_dict()


def _silent(stage: str, fraction: float | None = None) -> None:
  del stage, fraction


def _check_methods(methods: Sequence[str] | None) -> tuple[str, ...]:
  chosen = DEFAULT_METHODS if methods is None else tuple(methods)
  unknown = [m for m in chosen if m not in METHOD_TEXTS]
  if unknown or not chosen:
    raise ConfigError(
      "There is no such attribution method.",
      received=", ".join(unknown) or "no method",
      instead=f"any of {', '.join(METHOD_TEXTS)}",
    )
  return chosen


def _question(
  tokens: Sequence[parts.TokenInfo], ends: Ends, said: PromptAttributions
) -> Question:
  """What the dictionaries are asked."""
  title = None if said.flow is None else said.flow.title
  counted = np.asarray([not token.special for token in tokens])
  return Question(counted, *ends, said.streams, title)


def _features(
  lm: LanguageModel,
  suite: Suite | None,
  acts: Capture,
  question: Question,
  tell: Progress,
) -> Features | None:
  if suite is None:
    return None
  tell("Reading the latents of the starter suite")
  return prompt_features(lm, suite, acts, question)


def _prompt_ids(lm: LanguageModel, prompt: str, chat: bool | str) -> np.ndarray:
  if not prompt.strip():
    raise TextError(
      "The prompt is empty.",
      received=repr(prompt),
      instead='some text, such as "The capital of France is"',
    )
  if chat is False:
    return np.asarray(lm.tokenizer.encode(prompt), np.int32)
  lm.require_chat()
  messages = [{"role": "user", "content": prompt}]
  if isinstance(chat, str):
    messages.insert(0, {"role": "system", "content": chat})
  return np.asarray(chat_ids(lm.tokenizer, messages), np.int32)


def _capture(
  lm: LanguageModel, ids: np.ndarray, others: Sequence[str]
) -> Capture:
  """The one forward pass behind everything but the attributions."""
  batch = dataclasses.replace(to_tokens(lm, ids), exact=False)
  sites = [*direct.SITES, *others, "resid_post[:]", "logits"]
  if batch.width <= PATTERN_TOKENS:
    sites.append("pattern[:]")
  return capture(lm, batch, sites, logits_at=-1)


def _ends(
  lm: LanguageModel,
  logits: np.ndarray,
  target: str | int | None,
  against: str | int | None,
) -> Ends:
  """Ids of the token explained (asked for, or most probable) and its rival."""
  known = lm.tokenizer.token_id
  first = int(logits.argmax()) if target is None else known(target)
  return first, None if against is None else known(against)


def _objective(target_id: int, against_id: int | None) -> Target:
  if against_id is None:
    return logit(target_id)
  return logit_difference(target_id, against_id)


def _lens_grid(
  lm: LanguageModel, acts: Capture, target_id: int, tell: Progress
) -> parts.LensGrid:
  tell("Reading every layer (logit lens)")
  layers = range(lm.config.num_layers)
  sites = (Site("embed"), *(Site("resid_post", i) for i in layers))
  width = acts.tokens.width
  positions = tuple(range(max(0, width - LENS_COLUMNS), width))
  result = lens.read_lens(lm, acts, sites, positions, target_id)
  return parts.LensGrid(
    labels=tuple(map(str, sites)),
    positions=positions,
    top_ids=result.top_ids[:, 0],
    top_texts=tuple(tuple(row[0]) for row in result.top_texts),
    top_probs=result.top_probs[:, 0],
    target_probs=result.target_probs[:, 0],
    target_ranks=result.target_ranks[:, 0],
  )


def _components(
  lm: LanguageModel, acts: Capture, objective: Target, tell: Progress
) -> parts.ComponentScores:
  tell("Splitting the logit among components")
  split = direct.split_target(lm, acts, objective)
  return parts.ComponentScores(
    labels=split.labels,
    values=np.asarray(split.values.data_array)[:, 0],
    total=float(split.total[0]),
    heads=np.asarray(split.heads.data_array)[:, :, 0],
  )


def _tokens(lm: LanguageModel, ids: np.ndarray) -> tuple[parts.TokenInfo, ...]:
  control = set(lm.tokenizer.control_ids.values())
  tokens, start = [], 0
  for token, text in zip(ids.tolist(), lm.tokenizer.pieces(ids)):
    special = token in control
    end = start if special else start + len(text)
    tokens.append(parts.TokenInfo(token, text, start, end, special))
    start = end
  return tuple(tokens)


def _target_info(
  lm: LanguageModel,
  logits: np.ndarray,
  ends: Ends,
  length: int,
) -> parts.TargetInfo:
  target_id, other = ends
  probs = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
  text = lm.tokenizer.token_text
  value = float(logits[target_id])
  return parts.TargetInfo(
    id=target_id,
    text=text(target_id),
    position=length - 1,
    value=value if other is None else value - float(logits[other]),
    prob=float(probs[target_id]),
    rank=int((logits > logits[target_id]).sum()),
    against_id=other,
    against_text=None if other is None else text(other),
    against_prob=None if other is None else float(probs[other]),
  )


def _predictions(
  lm: LanguageModel, logits: np.ndarray
) -> tuple[parts.Prediction, ...]:
  top = top_tokens(lm.tokenizer, logits, PREDICTIONS)
  return tuple(parts.Prediction(p.id, p.text, p.logit, p.prob) for p in top)


def _attention(
  lm: LanguageModel, acts: Capture
) -> parts.AttentionPatterns | None:
  layers = range(lm.config.num_layers)
  if Site("pattern", 0) not in acts:
    return None
  names = (axes.BATCH, axes.HEADS, axes.SEQ, axes.KV_SEQ)
  patterns = np.stack(
    [np.asarray(acts[Site("pattern", i)].unwrap(*names))[0] for i in layers]
  )
  kinds = ["global" if lm.config.is_global(i) else "local" for i in layers]
  return parts.pack_attention(patterns, kinds=kinds)
