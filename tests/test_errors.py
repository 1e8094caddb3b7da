import pickle

import pytest

from gemma_scope import errors


def test_error_says_what_received_instead():
  error = errors.SiteError("No such site.", received=[1, 2], instead="z[0]")
  assert str(error) == ("No such site.\n  received: [1, 2]\n  instead:  z[0]")
  assert (error.what, error.received) == ("No such site.", "[1, 2]")


@pytest.mark.parametrize(
  "kind",
  [
    errors.CheckpointError,
    errors.SiteError,
    errors.TextError,
    errors.ConfigError,
  ],
)
def test_every_kind_is_caught_as_one(kind):
  with pytest.raises(errors.GemmaScopeError, match="wrong"):
    raise kind("wrong", received="", instead="")
  assert issubclass(kind, ValueError)


def test_errors_travel_between_processes():
  error = errors.TextError("wrong", received=3, instead="4")
  again = pickle.loads(pickle.dumps(error))
  assert type(again) is errors.TextError
  assert str(again) == str(error)
  assert again.instead == "4"
