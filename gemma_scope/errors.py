"""Errors that teach: what was wrong, what was received, what to type instead.

Every error the library raises on bad input is a `GemmaScopeError`. It does not
cover bugs: those stay ordinary Python exceptions with their traceback.
"""


class GemmaScopeError(ValueError):
  """Bad input, told in three parts.

  Attributes:
    what: One sentence that says what was wrong.
    received: What the library was given, short enough to read.
    instead: What to type or do instead.
  """

  def __init__(self, what: str, *, received: object, instead: str):
    self.what = what
    self.received = str(received)
    self.instead = instead
    super().__init__(f"{what}\n  received: {received}\n  instead:  {instead}")

  def __reduce__(self):
    # Exceptions are pickled by position; this one comes from workers, too.
    return _again, (type(self), self.what, self.received, self.instead)


def _again(
  kind: type[GemmaScopeError], what: str, received: str, instead: str
) -> GemmaScopeError:
  return kind(what, received=received, instead=instead)


class CheckpointError(GemmaScopeError):
  """A checkpoint is missing, damaged, or not what its name says."""


class SiteError(GemmaScopeError):
  """An address names no activation, or more than one."""


class TextError(GemmaScopeError):
  """A prompt, token or target cannot be used."""


class ConfigError(GemmaScopeError):
  """An option or a model name has no such value."""
