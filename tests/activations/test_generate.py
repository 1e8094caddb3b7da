"""Generation: with a cache, token for token what it is without one."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.activations import generate as generate_lib
from gemma_scope.activations.generate import Generation, generate
from gemma_scope.activations.run import forward
from gemma_scope.activations.sampling import Sampling
from gemma_scope.activations.tokens import to_tokens
from gemma_scope.errors import ConfigError, TextError
from gemma_scope.surgery import edit, tap
from gemma_scope.testing.tiny import tiny_gemma

NEW = 20
CHAT_NAME = "gemma-3-270m-it"
# Shorter than the window of 8, as long, and longer; BOS in front.
_RNG = np.random.default_rng(0)
PROMPTS = [[2, *_RNG.integers(4, 512, n).tolist()] for n in (2, 12, 7)]


def uncached(model, prompt, new, width=48):
  """Greedy, with one whole forward pass for every token."""
  tapped = tap(model, ["logits"])
  ids = list(prompt)
  for _ in range(new):
    row = np.zeros((1, width), np.int32)
    row[0, : len(ids)] = ids
    segments = (np.arange(width) < len(ids)).astype(np.int32)[None]
    last = np.array([len(ids) - 1])
    (logits,) = forward(tapped, row, segments, last, "logits").values()
    ids.append(int(jnp.argmax(logits.data_array)))
  return tuple(ids[len(prompt) :])


def scaled(value):
  """1.5 times the value, its axes in another order."""
  return (value * 1.5).order_as(*reversed(value.named_axes))


def edited():
  sites = ["mlp_write[1,4,7]", "key[:]", "value[5]", "embed"]
  return edit(tiny_gemma(), sites, scaled)


MODELS = {
  "scanned": tiny_gemma,
  "unrolled": lambda: tiny_gemma(scan=False),
  "edited": edited,
}


@pytest.mark.parametrize("kind", MODELS)
def test_cached_equals_uncached(tiny_lm, kind):
  """Rows of unequal length, past the window of the local layers."""
  model = MODELS[kind]()
  found = generate(tiny_lm.replace(model), PROMPTS, max_new_tokens=NEW)
  for prompt, ids in zip(PROMPTS, found.ids):
    assert ids == uncached(model, prompt, NEW)


def test_an_edit_changes_what_is_written(tiny_lm):
  plain = generate(tiny_lm, PROMPTS, max_new_tokens=NEW)
  other = generate(tiny_lm.replace(edited()), PROMPTS, max_new_tokens=NEW)
  assert plain.ids != other.ids


@pytest.mark.parametrize("new", [1, 7, 64])
def test_as_many_tokens_as_asked_for(tiny_lm, new):
  """64 fill the room that one program has."""
  found = generate(tiny_lm, PROMPTS, max_new_tokens=new)
  whole = generate(tiny_lm, PROMPTS, max_new_tokens=NEW)
  for ids, more in zip(found.ids, whole.ids):
    assert len(ids) == new
    assert ids[:NEW] == more[:new]


def test_a_row_ends_at_a_stop_token_and_the_others_go_on(tiny_lm, monkeypatch):
  free = generate(tiny_lm, PROMPTS, max_new_tokens=NEW)
  stop = free.ids[0][3]
  monkeypatch.setattr(generate_lib, "stop_ids", lambda tokenizer: (1, stop))
  found = generate(tiny_lm, PROMPTS, max_new_tokens=NEW)
  for row, ids in enumerate(free.ids):
    end = ids.index(stop) + 1 if stop in ids else NEW
    assert found.ids[row] == ids[:end]
    written = ids[: end - 1] if stop in ids else ids
    assert found.texts[row] == tiny_lm.tokenizer.decode(written)
  assert len(found.ids[0]) <= 4
  assert len({len(ids) for ids in found.ids}) > 1


def test_stop_tokens_are_those_of_gemma(tiny_lm):
  """<eos> and <end_of_turn>: 1 and 106."""
  assert generate_lib.stop_ids(tiny_lm.tokenizer) == (1, 106)


def test_random_choices_repeat_with_their_seed(tiny_lm):
  sampling = Sampling(temperature=1.0, top_k=50, top_p=0.95)

  def write(seed):
    found = generate(
      tiny_lm, PROMPTS, max_new_tokens=NEW, sampling=sampling, seed=seed
    )
    return found.ids

  assert write(3) == write(3)
  assert write(3) != write(4)
  assert write(3) != generate(tiny_lm, PROMPTS, max_new_tokens=NEW).ids


def test_text_in_text_out(tiny_lm):
  texts = ["The capital of France is", " Paris"]
  found = generate(tiny_lm, texts, max_new_tokens=5)
  assert found.prompts == tuple(texts)
  for text, ids in zip(texts, found.ids):
    assert ids == uncached(tiny_lm.model, tiny_lm.tokenizer.encode(text), 5)
  assert found.texts == tuple(map(tiny_lm.tokenizer.decode, found.ids))


def test_chat_wraps_what_the_user_says(tiny_lm):
  ids = [2, 105, *tiny_lm.tokenizer.encode("user\nHi", bos=False), 106, 107]
  ids += [105, *tiny_lm.tokenizer.encode("model\n", bos=False)]
  chat_lm = dataclasses.replace(tiny_lm, name=CHAT_NAME)
  found = generate(chat_lm, "Hi", max_new_tokens=5, chat=True)
  assert found.ids == (uncached(tiny_lm.model, ids, 5),)


def test_prompts_of_one_bucket_share_a_program(tiny_lm, monkeypatch):
  shapes = []

  def decode(model, ids, segment_ids, *rest):
    assert ids.shape == segment_ids.shape
    shapes.append(ids.shape)
    return np.zeros((len(ids), 64), int), np.ones(len(ids), int)

  monkeypatch.setattr(generate_lib, "decode", decode)
  for given in ("a", "abc", [2, 9, 5], PROMPTS[1]):
    generate(tiny_lm, given)
  chat_lm = dataclasses.replace(tiny_lm, name=CHAT_NAME)
  generate(chat_lm, "abc", chat=True)
  assert shapes == [(1, 16)] * 4 + [(1, 32)]


def test_chat_with_a_base_model_is_refused(tiny_lm):
  for ask in (gs.explain, generate):
    with pytest.raises(ConfigError, match="not trained on chat turns"):
      ask(tiny_lm, "Hi", chat=True)


@pytest.mark.parametrize("segments", [[1, 1, 2], [0, 1, 1]])
def test_packed_rows_are_refused(tiny_lm, segments):
  batch = to_tokens(tiny_lm, [2, 5, 6], segments)
  with pytest.raises(TextError, match="rows of one sequence"):
    generate(tiny_lm, batch)


@pytest.mark.parametrize("new", [0, -3, 2.5])
def test_room_for_no_token_is_refused(tiny_lm, new):
  with pytest.raises(ConfigError, match=f"max_new_tokens={new}"):
    generate(tiny_lm, PROMPTS, max_new_tokens=new)


def test_more_than_the_context_is_refused(tiny_lm):
  config = dataclasses.replace(tiny_lm.config, max_context=20)
  lm = dataclasses.replace(tiny_lm, config=config)
  with pytest.raises(ConfigError, match=r"13 \+ 8 tokens") as error:
    generate(lm, PROMPTS, max_new_tokens=8)
  assert "at most 20" in error.value.instead


@pytest.mark.parametrize("given", ["", [], [[2, 600]]])
def test_prompts_that_cannot_be_run_are_refused(tiny_lm, given):
  with pytest.raises(TextError):
    generate(tiny_lm, given)


def test_it_shows_itself():
  found = Generation(("1 <",), (" 2",), ((9,),))
  assert str(found) == "1 < 2"
  assert repr(found) == "Generation([' 2'])"
  assert "1 &lt;" in found._repr_html_()


@pytest.mark.real
def test_cached_equals_uncached_on_real_weights(real_lm):
  """Across a prompt's end; the model is unrolled, as it is by default."""
  text = "When Mary and John went to the store, John gave a drink to"
  found = generate(real_lm, text, max_new_tokens=12)
  prompt = real_lm.tokenizer.encode(text)
  assert found.ids == (uncached(real_lm.model, prompt, 12, width=32),)
  assert found.texts[0].startswith(" Mary")
