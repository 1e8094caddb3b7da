"""Every method is presented, and the defaults exist."""

from gemma_scope.attribution.attribute import METHODS
from gemma_scope.viz import methods


def test_every_method_has_its_text():
  assert set(methods.METHOD_TEXTS) == set(METHODS)
  titles = [text.title for text in methods.METHOD_TEXTS.values()]
  assert len(set(titles)) == len(titles)


def test_defaults_and_flows_are_methods():
  assert set(methods.DEFAULT_METHODS) <= set(METHODS)
  assert set(methods.FLOW_METHODS) <= set(METHODS)


def test_lrp_says_that_it_is_reported_to_be_patented():
  for name, text in methods.METHOD_TEXTS.items():
    assert ("patented" in " ".join(text.notes)) == ("lrp" in name)
