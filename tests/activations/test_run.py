"""`capture`: any input, any sites, one pass, and nothing unasked."""

import dataclasses

import numpy as np
from penzai import pz
import pytest

import gemma_scope as gs
from gemma_scope.activations import run as run_lib
from gemma_scope.activations.run import capture, forward
from gemma_scope.errors import SiteError, TextError
from gemma_scope.model import gemma
from gemma_scope.model.convert import gemma_to_tensors
from gemma_scope.sites import SITES, Site
from gemma_scope.surgery import edit
from gemma_scope.testing import oracle

TEXT = "The capital of France is"
CHEAP = ["resid_post[0]"]  # one layer is run, and compiled


@pytest.fixture(scope="module")
def tensors(tiny_lm):
  return gemma_to_tensors(tiny_lm.model)


@pytest.fixture(scope="module")
def everything(tiny_lm):
  """Every site of two prompts of unequal length."""
  sites = [n + ("[:]" if i.per_layer else "") for n, i in SITES.items()]
  return capture(tiny_lm, [TEXT, " Paris is in"], sites)


def data(value, name="resid_post"):
  return np.asarray(value.unwrap(*SITES[name].axes))


def check(acts, tensors, config, row, tokens):
  expected = oracle.oracle_forward(tensors, config, np.asarray(tokens))
  errors = oracle.relative_errors(acts, expected, row)
  assert max(errors.values()) < 1e-5, errors


def test_every_site_of_every_prompt_is_the_oracles(
  everything, tensors, tiny_lm
):
  """Also behind the padding that text gets."""
  assert len(everything) == 15 * tiny_lm.config.num_layers + 3
  for row, length in enumerate(everything.tokens.lengths):
    tokens = everything.tokens.ids[row, :length]
    check(everything, tensors, tiny_lm.config, row, tokens)


def test_arrays_have_their_axes_and_no_added_columns(everything):
  width = everything.tokens.width
  assert width % 16
  for site, value in everything.items():
    assert isinstance(value, pz.nx.NamedArray)
    assert tuple(value.named_axes) == site.info.axes
    shape = value.named_shape
    assert shape["batch"] == 2
    assert shape["seq"] == shape.get("kv_seq", width) == width


def test_keys_print_as_addresses_in_forward_order(tiny_lm):
  acts = capture(tiny_lm, TEXT, ["resid_post[1]", "z[0]", "embed", "z[1]"])
  assert [str(site) for site in acts] == [
    "embed",
    "z[0]",
    "z[1]",
    "resid_post[1]",
  ]
  assert all(isinstance(site, Site) for site in acts)


def test_strings_and_sites_look_up_the_same(everything):
  assert everything["z[3]"] is everything[Site("z", 3)]
  assert "z[3]" in everything
  assert Site("z", 3) in everything
  assert "z[300]" not in everything
  assert Site("z", 300) not in everything
  assert dict(everything.items()).keys() == set(everything)


def test_what_was_not_captured_is_refused(tiny_lm):
  acts = capture(tiny_lm, [2, 9], ["resid_post[0]"])
  for wanted in ("z[0]", "resid_post", Site("embed")):
    with pytest.raises(SiteError, match="not among the results") as error:
      acts[wanted]
    assert error.value.instead == "one of resid_post[0]"
  with pytest.raises(SiteError, match="not captured"):
    acts.stacked("mlp_in")


def test_layers_can_be_stacked(everything, tiny_lm):
  stacked = everything.stacked("resid_mid")
  assert stacked.named_shape["layer"] == tiny_lm.config.num_layers
  rows = stacked.unwrap("layer", "batch", "seq", "embedding")
  for layer in (0, 5, 7):
    expected = data(everything[f"resid_mid[{layer}]"])
    np.testing.assert_array_equal(rows[layer], expected)


@pytest.mark.parametrize(
  ("given", "rows"),
  [
    ([2, 9, 5, 7], [[2, 9, 5, 7]]),
    (np.array([[2, 9, 5, 7]]), [[2, 9, 5, 7]]),
    ([[2, 9, 5, 7], [2, 8]], [[2, 9, 5, 7], [2, 8]]),
    (
      pz.nx.wrap(np.array([[2, 9, 5, 7], [2, 8, 3, 3]]), "batch", "seq"),
      [[2, 9, 5, 7], [2, 8, 3, 3]],
    ),
  ],
  ids=["list", "array", "ragged", "named"],
)
def test_token_ids_in_any_form(tiny_lm, tensors, given, rows):
  acts = capture(tiny_lm, given, CHEAP)
  for row, tokens in enumerate(rows):
    check(acts, tensors, tiny_lm.config, row, tokens)


def test_text_is_tokens_with_bos(tiny_lm, tensors):
  acts = capture(tiny_lm, TEXT, CHEAP)
  tokens = tiny_lm.tokenizer.encode(TEXT)
  assert tokens[0] == 2
  check(acts, tensors, tiny_lm.config, 0, tokens)
  assert acts.tokens.ids.tolist() == [tokens]


def test_packed_rows_are_separate_sequences(tiny_lm, tensors):
  tokens = np.random.default_rng(0).integers(2, 512, 20)
  segments = [1] * 11 + [2] * 7 + [0] * 2
  sites = ["resid_post[5]", "pattern[5]"]
  acts = capture(tiny_lm, tokens, sites, segment_ids=segments)
  for first, length in ((0, 11), (11, 7)):
    sequence = tokens[first : first + length]
    expected = oracle.oracle_forward(tensors, tiny_lm.config, sequence)
    errors = oracle.relative_errors(acts, expected, first=first)
    assert max(errors.values()) < 1e-5


@pytest.mark.parametrize(
  ("at", "columns"),
  [
    (None, [0, 1, 2, 3]),
    (-1, [3]),
    (1, [1]),
    (slice(1, 3), [1, 2]),
    (slice(-2, None), [2, 3]),
    (np.int64(2), [2]),
  ],
  ids=str,
)
def test_logits_at_some_columns(tiny_lm, tensors, at, columns):
  tokens = [2, 9, 5, 7]
  acts = capture(tiny_lm, tokens, ["logits", "final_norm"], logits_at=at)
  values = oracle.oracle_forward(tensors, tiny_lm.config, np.array(tokens))
  for name in ("logits", "final_norm"):
    expected = values[Site(name)][None, columns]
    found = data(acts[name], name)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at", [4, -5, "last", 1.5, True, slice(5, 5)])
def test_there_are_no_logits_where_no_token_is(tiny_lm, at):
  with pytest.raises(SiteError, match="no token at this position") as error:
    capture(tiny_lm, [2, 9, 5, 7], ["logits"], logits_at=at)
  assert error.value.instead.startswith("a position from -4 to 3")


@pytest.mark.parametrize(
  ("sites", "message"),
  [
    (["resid_past[0]"], "did you mean resid_post"),
    (["resid_post[8]"], "8 layers"),
    ([Site("z", 99)], "8 layers"),
    (["resid_post"], "say which"),
    (["logits[0]"], "one logits in the model"),
    ([7], "string or a Site"),
    ([], "There is no site to capture"),
  ],
)
def test_sites_that_are_not_there_are_refused(tiny_lm, sites, message):
  with pytest.raises(SiteError, match=message):
    capture(tiny_lm, TEXT, sites)


@pytest.mark.parametrize(
  ("given", "message"),
  [("", "empty"), ([], "no tokens"), ([600], "vocabulary"), ([0.5], "whole")],
)
def test_input_that_cannot_be_run_is_refused(tiny_lm, given, message):
  with pytest.raises(TextError, match=message):
    capture(tiny_lm, given, CHEAP)


def test_prompts_longer_than_the_context_are_refused(tiny_lm):
  config = dataclasses.replace(tiny_lm.config, max_context=4)
  lm = dataclasses.replace(tiny_lm, config=config)
  with pytest.raises(TextError, match="longer than the model's context"):
    capture(lm, TEXT, CHEAP)


@pytest.fixture
def traces(monkeypatch):
  """A list that grows whenever a program is traced anew."""
  found = []
  original = gemma.run

  def counted(model, *args):
    found.append(model.stack.stop)
    return original(model, *args)

  monkeypatch.setattr(run_lib.gemma, "run", counted)
  forward.clear_cache()
  return found


def test_texts_of_one_bucket_share_a_program(tiny_lm, traces):
  for text in ("a", "abc", TEXT):
    capture(tiny_lm, text, ["resid_post[0]"])
    capture(tiny_lm, text, ["embed", "logits"])
  assert traces == [1, 8]


def test_layers_past_the_last_site_are_not_run(tiny_lm, traces):
  for sites in (["embed"], ["z[2]", "embed"], ["final_norm"]):
    capture(tiny_lm, [2, 9], sites)
  assert traces == [0, 3, 8]


def doubled(value):
  return 2 * value


def test_an_edited_model_is_captured_as_edited(tiny_lm, tensors):
  """What is captured at the site of an edit is the edited value."""
  sites = [Site("mlp_write", 0), Site("resid_post", 1)]
  edited = edit(tiny_lm.model, sites[0], doubled)
  tokens = np.array([2, 9, 5])
  acts = capture(tiny_lm.replace(edited), tokens, sites)
  edits = {sites[0]: doubled}
  values = oracle.oracle_forward(tensors, tiny_lm.config, tokens, edits)
  assert max(oracle.relative_errors(acts, values).values()) < 1e-5


def test_it_shows_itself(everything, tiny_lm):
  assert repr(everything).startswith("Capture(123 sites: embed, resid_pre[0],")
  html = capture(tiny_lm, [2, 9], CHEAP)._repr_html_()
  for shown in ("resid_post[0]", "embedding", "float32", "root mean square"):
    assert shown in html


def test_it_is_what_the_package_offers(tiny_lm):
  assert gs.capture is capture
  assert isinstance(gs.capture(tiny_lm, [2, 9], "embed"), gs.Capture)
