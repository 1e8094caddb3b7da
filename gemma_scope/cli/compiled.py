"""Compiled programs outlive the command: the next one starts in seconds.

The library never touches JAX's global settings; a command owns its process
and may. `JAX_COMPILATION_CACHE_DIR` in the environment goes first.
"""

from gemma_scope.weights import cache

_WORTH_KEEPING = 0.2  # seconds of compilation


def keep_compiled_programs() -> None:
  """Points JAX's compilation cache at the library's cache folder.

  Where the folder cannot be written, programs are compiled anew each time.
  """
  import jax  # here, so that help starts without it

  if jax.config.jax_compilation_cache_dir is not None:
    return
  folder = cache.folder() / "xla"
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError:
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update(
    "jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING
  )
