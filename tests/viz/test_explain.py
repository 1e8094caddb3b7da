"""`explain` puts together what `analysis` and `attribution` say."""

import dataclasses

import numpy as np
import pytest

from gemma_scope import errors, testing
from gemma_scope.activations.run import capture
from gemma_scope.analysis.direct import direct_logit_attribution
from gemma_scope.analysis.lens import logit_lens
from gemma_scope.attribution.attribute import METHODS, attribute
from gemma_scope.attribution.objectives import logit, logit_difference
from gemma_scope.dictionaries import suite as suites
from gemma_scope.model.chat import chat_ids
from gemma_scope.testing.latents import random_suite
from gemma_scope.testing.tiny import tiny_config
from gemma_scope.viz import explain as explaining
from gemma_scope.viz.explain import DEFAULT_METHODS, METHOD_TEXTS, explain

PROMPT = " the capital\n of France is"
FAST = ("input_x_gradient",)  # compiles in a third of the time


@pytest.fixture(scope="module")
def lm():
  return testing.tiny_lm(tiny_config(num_layers=2, window=4))


@pytest.fixture(scope="module")
def chat_lm(lm):
  return dataclasses.replace(lm, name="gemma-3-270m-it")


@pytest.fixture(scope="module")
def stages():
  return []


@pytest.fixture(scope="module")
def whole(lm, stages):
  """Every method, a difference of two logits."""

  def tell(stage, fraction=None):
    stages.append(stage)

  return explain(lm, PROMPT, target=" Paris", against=" Rome", progress=tell)


@pytest.fixture(scope="module")
def plain(lm):
  """The defaults, but for the methods."""
  return explain(lm, PROMPT, methods=FAST)


def probabilities(lm):
  logits = capture(lm, PROMPT, ["logits"], logits_at=-1)["logits"]
  exact = np.asarray(logits.data_array, np.float64)[0, 0]
  exp = np.exp(exact - exact.max())
  return exact, exp / exp.sum()


def test_predictions_are_the_most_probable_tokens(lm, plain):
  logits, probs = probabilities(lm)
  order = np.argsort(-logits)[:10]
  assert [p.id for p in plain.predictions] == order.tolist()
  for p in plain.predictions:
    assert p.text == lm.tokenizer.token_text(p.id)
    assert p.logit == pytest.approx(logits[p.id], rel=1e-4)
    assert p.prob == pytest.approx(probs[p.id], rel=1e-4)


def test_by_default_the_top_token_is_explained(lm, plain):
  logits, probs = probabilities(lm)
  target, top = plain.target, int(logits.argmax())
  assert (target.id, target.rank, target.against_id) == (top, 0, None)
  assert target.text == lm.tokenizer.token_text(top)
  assert target.value == pytest.approx(logits[top], rel=1e-5)
  assert target.prob == pytest.approx(probs[top], rel=1e-4)
  assert target.position == len(plain.tokens) - 1


def test_a_target_against_another_is_a_difference(lm, whole):
  logits, probs = probabilities(lm)
  a, b = (lm.tokenizer.token_id(t) for t in (" Paris", " Rome"))
  target = whole.target
  assert (target.id, target.against_id) == (a, b)
  assert (target.text, target.against_text) == (" Paris", " Rome")
  assert target.value == pytest.approx(logits[a] - logits[b], rel=1e-3)
  assert target.against_prob == pytest.approx(probs[b], rel=1e-4)
  assert target.rank == (logits > logits[a]).sum()


def test_tokens_cover_the_prompt(whole):
  assert whole.prompt == PROMPT
  first, *others = whole.tokens
  assert (first.text, first.special, first.start, first.end) == (
    "<bos>",
    True,
    0,
    0,
  )
  assert "".join(t.text for t in others) == PROMPT
  assert all(PROMPT[t.start : t.end] == t.text for t in others)
  assert not any(t.special for t in others)


def test_attributions_are_those_of_attribute(lm, whole):
  assert [a.method for a in whole.attributions] == list(DEFAULT_METHODS)
  target = logit_difference(" Paris", " Rome")
  for found in whole.attributions:
    text = METHOD_TEXTS[found.method]
    expected = attribute(
      lm, PROMPT, target, method=found.method, options=text.options
    )
    np.testing.assert_allclose(
      found.scores, expected.per_token().data_array[0], rtol=1e-4, atol=1e-6
    )
    assert found.title == text.title
    assert found.notes == text.notes
  path, rules, local = whole.attributions
  assert (rules.total, local.total) == (None, None)
  assert abs(path.residual) < 1e-3 < abs(path.total)


def test_the_lens_grid_is_the_logit_lens(lm, whole):
  expected = logit_lens(
    lm, PROMPT, sites=["embed", "resid_post[:]"], target=" Paris"
  )
  assert whole.lens.labels == ("embed", "resid_post[0]", "resid_post[1]")
  assert whole.lens.positions == expected.positions
  np.testing.assert_array_equal(whole.lens.top_ids, expected.top_ids[:, 0])
  np.testing.assert_array_equal(
    whole.lens.target_ranks, expected.target_ranks[:, 0]
  )
  for name in ("top_probs", "target_probs"):
    found = getattr(whole.lens, name)
    np.testing.assert_allclose(found, getattr(expected, name)[:, 0], rtol=1e-4)
  assert [list(row) for row in whole.lens.top_texts] == [
    row[0] for row in expected.top_texts
  ]


def test_components_are_those_of_direct_logit_attribution(lm, whole):
  target = logit_difference(" Paris", " Rome")
  expected = direct_logit_attribution(lm, PROMPT, target)
  assert whole.components.labels == expected.labels
  np.testing.assert_allclose(
    whole.components.values,
    expected.values.data_array[:, 0],
    rtol=1e-4,
    atol=1e-6,
  )
  np.testing.assert_allclose(
    whole.components.heads,
    expected.heads.data_array[..., 0],
    rtol=1e-4,
    atol=1e-6,
  )
  assert whole.components.total == pytest.approx(whole.target.value, rel=1e-3)


def test_attention_is_the_pattern_site(lm, whole):
  acts = capture(lm, PROMPT, ["pattern[:]"])
  exact = acts.stacked("pattern").unwrap(
    "layer", "batch", "heads", "seq", "kv_seq"
  )
  np.testing.assert_allclose(
    whole.attention.probabilities, np.asarray(exact)[:, 0], atol=4e-3
  )
  assert whole.attention.kinds == ("local", "local")


def test_the_manifest_tells_how_to_make_it_again(lm, plain, whole):
  config = whole.manifest["config"]
  assert (config["prompt"], config["target"]) == (PROMPT, " Paris")
  assert config["against"] == " Rome"
  assert config["methods"] == list(DEFAULT_METHODS)
  assert config["dtype"] == "float32"
  assert whole.manifest["model"] == whole.model == lm.name
  assert whole.manifest["source"] == lm.source
  assert plain.manifest["config"]["target"] is None


def test_progress_is_told(whole, stages):
  assert stages[0] == "Running the model"
  for method in DEFAULT_METHODS:
    assert f"Attributing: {METHOD_TEXTS[method].title}" in stages


def test_every_method_can_be_presented():
  assert set(METHOD_TEXTS) == set(METHODS)


def test_it_becomes_a_page_and_json(whole):
  assert "</html>" in whole.to_html()
  assert whole.to_dict()["target"]["text"] == " Paris"


def test_long_prompts_stay_usable(lm, plain, monkeypatch):
  monkeypatch.setattr(explaining, "LENS_COLUMNS", 3)
  monkeypatch.setattr(explaining, "PATTERN_TOKENS", 4)
  found = explain(lm, PROMPT, methods=FAST)
  assert found.attention is None
  n = len(found.tokens)
  assert found.lens.positions == (n - 3, n - 2, n - 1)
  np.testing.assert_array_equal(found.lens.top_ids, plain.lens.top_ids[:, -3:])


def test_chat_wraps_the_prompt_as_a_turn(chat_lm):
  found = explain(chat_lm, "the capital", chat="drink", methods=FAST)
  ids = chat_ids(
    chat_lm.tokenizer,
    [
      {"role": "system", "content": "drink"},
      {"role": "user", "content": "the capital"},
    ],
  )
  assert [t.id for t in found.tokens] == ids
  special = [t.text for t in found.tokens if t.special]
  turns = ["<start_of_turn>", "<end_of_turn>", "<start_of_turn>"]
  assert special == ["<bos>", *turns]
  assert found.target.position == len(ids) - 1
  assert "the capital" in found.prompt


@pytest.mark.parametrize(
  ("changes", "error", "match"),
  [
    ({"prompt": " \n"}, errors.TextError, "The prompt is empty"),
    ({"prompt": " a" * 300}, errors.TextError, "received: 301 tokens"),
    ({"target": " Paris Rome"}, errors.TextError, "exactly one token"),
    ({"target": 9, "against": "xy"}, errors.TextError, "exactly one token"),
    ({"target": 9, "against": 9}, errors.TextError, "two different tokens"),
    (
      {"methods": ["magic", *FAST]},
      errors.ConfigError,
      "received: magic\n.*any of integrated_gradients",
    ),
    ({"methods": []}, errors.ConfigError, "received: no method"),
    ({"chat": "drink"}, errors.ConfigError, "not trained on chat turns"),
    ({"chat": True}, errors.ConfigError, "not trained on chat turns"),
  ],
)
def test_bad_input_is_refused(lm, changes, error, match):
  arguments = {"prompt": PROMPT, "methods": FAST, **changes}
  prompt = arguments.pop("prompt")
  with pytest.raises(error, match=match):
    explain(lm, prompt, **arguments)


def test_without_a_suite_of_the_model_one_line_says_so(plain, lm):
  assert plain.features is None
  assert plain.features_note == (
    f"No features: the starter suite has none of {lm.title}."
  )


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
  """A suite of the model, in the place of the package's."""
  path = random_suite(
    tmp_path_factory.mktemp("suite") / "suite.zip",
    sae_layers=(0, 1),
    num_layers=2,
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(suites, "PATH", path)
    yield suites.starter()


@pytest.fixture(scope="module")
def featured(lm, suite):
  return explain(lm, PROMPT, methods=("attn_lrp",))


def test_features_are_those_of_the_suite(lm, suite, featured):
  found = featured.features
  assert featured.features_note == ""
  assert [x.site for x in found.layers] == ["resid_post[0]", "resid_post[1]"]
  assert [x.label for x in found.mlps] == ["mlp_write[0]", "mlp_write[1]"]
  assert found.title == "AttnLRP"
  for layer in found.layers:
    sae = suite[layer.dictionary]
    acts = capture(lm, PROMPT, [sae.site])[sae.site]
    latents = np.asarray(sae.encode(acts).unwrap("batch", "seq", "latents"))[0]
    counts = (latents > 0).sum(1)
    counts[0] = 0  # BOS
    np.testing.assert_array_equal(layer.counts, counts)
    row = featured.flow.labels.index(layer.site)
    np.testing.assert_allclose(
      layer.totals, featured.flow.values[row], rtol=1e-3, atol=1e-6
    )
  for part in found.mlps:
    i = featured.components.labels.index(part.label)
    expected = featured.components.values[i]
    assert part.total == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_features_are_left_out_on_request(lm, suite):
  found = explain(lm, PROMPT, methods=FAST, features=False)
  assert found.features is None
  assert found.features_note == "Features were not asked for."


def test_one_logit_is_split_and_attributed(lm, plain):
  """Without `against` the parts are those of a single logit."""
  target = logit(plain.target.id)
  expected = direct_logit_attribution(lm, PROMPT, target)
  assert plain.components.total == pytest.approx(plain.target.value, rel=1e-4)
  np.testing.assert_allclose(
    plain.components.values,
    expected.values.data_array[:, 0],
    rtol=1e-4,
    atol=1e-6,
  )
