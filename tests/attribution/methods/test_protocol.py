import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import errors
from gemma_scope.attribution.attribute import METHODS, GradientOptions
from gemma_scope.attribution.methods.protocol import (
  Method,
  Options,
  checked_options,
  nothing_promised,
)
from gemma_scope.sites import Site

methods = pytest.mark.parametrize("name", METHODS)


@methods
def test_every_method_takes_its_own_options_alone(name):
  method = METHODS[name]
  default = checked_options(name, method, None)
  assert type(default) is (method.options or type(None))
  if default is not None:
    assert checked_options(name, method, default) is default
  for other in METHODS.values():
    if other.options in (None, method.options):
      continue
    with pytest.raises(
      errors.ConfigError,
      match=rf"{other.options.__name__} with method='{name}'\n.*"
      + (method.options.__name__ if method.options else "has none"),
    ):
      checked_options(name, method, other.options())


@methods
def test_options_are_public(name):
  options = METHODS[name].options
  if options is not None:
    assert getattr(gs.attribution, options.__name__) is options


def test_unknown_options_are_python_errors():
  with pytest.raises(TypeError, match="window"):
    GradientOptions(window=3)  # pyright: ignore


def test_options_without_texts_stay_as_they_are(tiny_lm):
  options = Options()
  assert options.resolved(tiny_lm, None) is options  # pyright: ignore


def test_a_method_is_called_with_its_question():
  answer = Method(lambda question: question)("asked")  # pyright: ignore
  assert answer == "asked"


def test_no_promise_is_no_number():
  sites = (Site("embed"), Site("z", 1))
  found = nothing_promised(np.zeros(3, np.float32), sites)
  assert tuple(found) == sites
  assert all(np.isnan(v).all() and v.shape == (3,) for v in found.values())
