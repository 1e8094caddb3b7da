"""The prompt of a verb: from the command line, a file or standard input.

Refuses what could only be a mistake before any weights are loaded. Length and
special tokens are the tokenizer's business.
"""

from collections.abc import Sequence
import os
import pathlib
import sys

from gemma_scope.errors import ConfigError, TextError

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tiff")
_IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8")


def read_prompt(words: Sequence[str], file: str | None) -> str:
  r"""Returns the prompt as text; one line break at a file's end is dropped.

  Args:
    words: The positional arguments; "-" alone reads standard input.
    file: A UTF-8 file to read instead, or None.

  Raises:
    ConfigError: If there is no prompt, or more than one.
    TextError: If it is empty, or no text.
  """
  if file is not None and words:
    raise ConfigError(
      "There are two prompts.",
      received=f"{words[0]!r} and --prompt-file {file}",
      instead="one of the two",
    )
  if not words and file is None:
    raise ConfigError(
      "There is no prompt.",
      received="nothing",
      instead='a text in quotes, such as "The capital of France is"',
    )
  if len(words) > 1:
    raise ConfigError(
      "The prompt must be one argument.",
      received=f"{len(words)} arguments: {' '.join(words)}",
      instead=f'quotes around it: "{" ".join(words)}"',
    )
  if file is not None:
    return _checked(_decode(_read_file(file), file), file)
  if words[0] == "-":
    return _checked(_decode(sys.stdin.buffer.read(), "stdin"), "stdin")
  _refuse_image_path(words[0])
  return _checked(words[0], "the prompt")


def _read_file(path: str) -> bytes:
  try:
    return pathlib.Path(path).expanduser().read_bytes()
  except (OSError, ValueError) as error:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    raise TextError(
      "The prompt file cannot be read.",
      received=f"{path}: {reason}",
      instead="the path of a UTF-8 text file, or `-` for standard input",
    ) from error


def _decode(raw: bytes, name: str) -> str:
  if _is_image(raw):
    raise _image_error(name)
  try:
    text = raw.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise TextError(
      "The prompt is not UTF-8 text.",
      received=f"byte 0x{raw[error.start]:02x} at {error.start} of {name}",
      instead="the same text saved as UTF-8 (iconv -t UTF-8 converts it)",
    ) from error
  return text.removesuffix("\n").removesuffix("\r")


def _checked(text: str, name: str) -> str:
  """Refuses text that no tokenizer can take, or that is none."""
  if not text:
    raise TextError(
      "The prompt is empty.",
      received=f"{name}: no characters",
      instead='a text, such as "The capital of France is"',
    )
  for index, character in enumerate(text):
    if character == "\0" or "\ud800" <= character <= "\udfff":
      raise TextError(
        "The prompt holds a character that is no text.",
        received=f"U+{ord(character):04X} at character {index} of {name}",
        instead="UTF-8 text without NUL",
      )
  return text


def _is_image(raw: bytes) -> bool:
  webp = raw[:4] == b"RIFF" and raw[8:12] == b"WEBP"
  return webp or raw.startswith(_IMAGE_STARTS)


def _refuse_image_path(text: str) -> None:
  """A path of an image as the prompt is meant as the image, never as text."""
  if text.lower().endswith(_IMAGE_SUFFIXES) and os.path.isfile(text):
    raise _image_error(text)


def _image_error(name: str) -> TextError:
  return TextError(
    "An image cannot be explained: only Gemma 3's text part is here.",
    received=name,
    instead="a text prompt",
  )
