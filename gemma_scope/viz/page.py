"""What every page shares: one self-contained file, its scripts, its manifest.

A page asks the network for nothing and cannot: style, scripts and data are
inside it, and its content security policy allows no other (the scripts by
their hash). What can be read without scripts is written by the templates; the
rest is drawn by the scripts from data embedded as JSON.
"""

import base64
from collections.abc import Mapping, Sequence
import functools
import hashlib
import importlib.resources
from typing import Any

import jinja2
import markupsafe

from gemma_scope import display


def render_page(
  template: str,
  scripts: Sequence[str],
  styles: Sequence[str],
  fields: Mapping[str, Any],
) -> str:
  """Renders a page; a string that is written to a file as UTF-8.

  Args:
    template: A template that extends `page.html.jinja`.
    scripts: The files of its scripts, in order.
    styles: The files of its styles, in order.
    fields: What the template shows; `data` is embedded for the scripts.
  """
  script = "\n".join(map(_asset, scripts))
  return _template(template).render(
    fields,
    script=markupsafe.Markup(script),
    script_hash=_content_hash(script),
    style=markupsafe.Markup("\n".join(map(_asset, styles))),
    dark=markupsafe.Markup(_asset("dark.css")),
  )


@functools.cache
def _template(name: str) -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.FunctionLoader(_asset),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters["signed"] = display.signed
  environment.filters["percent"] = display.percent
  environment.filters["visible"] = display.visible
  environment.filters["label"] = functools.partial(display.visible, spaces=True)
  return environment.get_template(name)


@functools.cache
def _asset(name: str) -> str:
  folder = importlib.resources.files("gemma_scope.viz") / "templates"
  return (folder / name).read_text("utf-8")


def _content_hash(script: str) -> str:
  """The script as the content security policy names it.

  The template puts a newline before and after the script.
  """
  digest = hashlib.sha256(f"\n{script}\n".encode()).digest()
  return f"sha256-{base64.b64encode(digest).decode()}"


def flatten(value: Any, path: str = "") -> list[tuple[str, str]]:
  """Nested JSON as (dotted path, text) rows."""
  if isinstance(value, Mapping) and value:
    return [
      row
      for key, inner in value.items()
      for row in flatten(inner, f"{path}.{key}" if path else str(key))
    ]
  if isinstance(value, list):
    value = ", ".join(map(str, value))
  empty = value is None or value in ("", {})
  return [(path, "none" if empty else display.visible(str(value)))]
