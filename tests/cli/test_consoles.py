import sys

import pytest

from gemma_scope.cli import consoles


def test_results_and_messages_do_not_mix(capsys):
  consoles.results().print("result")
  consoles.messages().print("message")
  captured = capsys.readouterr()
  assert captured.out == "result\n"
  assert captured.err == "message\n"


def test_closed_pipe_is_left_to_the_caller(monkeypatch):
  class Closed:
    encoding = "utf-8"

    def isatty(self):
      return False

    def write(self, text):
      raise BrokenPipeError

    flush = write

  monkeypatch.setattr(sys, "stdout", Closed())
  with pytest.raises(BrokenPipeError):
    consoles.results().print("result")
