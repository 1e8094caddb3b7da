"""One latent in a terminal."""

import io

from rich import console as rich_console

from gemma_scope.viz import dashboard_terminal
from tests.viz.made_dashboard import make_dashboard

TEXTS = [" Mary", " had", " a", "\n", " lamb", ",", " its", " fleece"]


def write(dashboard, *, width=90, page=None):
  file = io.StringIO()
  console = rich_console.Console(file=file, width=width)
  dashboard_terminal.render(dashboard, console, page=page)
  return file.getvalue()


def test_summary():
  text = write(make_dashboard(TEXTS), page="/tmp/x.html")
  assert text.startswith("resid_post[9].latents[4]\nnames of people\n")
  assert "Active on 1 token in 250, at most 812 (250,000 tokens" in text
  assert "Raises: “Mary”, “had”" in text
  assert text.count(" «lamb»") == 3
  assert text.endswith("Report: /tmp/x.html\n")


def test_dead_latents():
  text = write(make_dashboard(TEXTS, index=3))
  assert "It was never active" in text
  assert "Strongest examples" not in text


def test_no_control_character_reaches_the_terminal():
  text = write(make_dashboard(["\x1b[31m", "\u202e", "\x00"] * 2))
  assert not set(text) & {"\x1b", "\u202e", "\x00"}
