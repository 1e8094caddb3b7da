"""Compiled programs outlive the command: the next one starts in seconds.

The library never touches JAX's global settings; a command owns its process
and may. `JAX_COMPILATION_CACHE_DIR` in the environment goes first.
"""

from gemma_scope.weights import cache

_FOLDER = "jax_compilation_cache_dir"
_LEAST_SECONDS = "jax_persistent_cache_min_compile_time_secs"


def keep_compiled_programs() -> None:
  """Points JAX's compilation cache at the library's cache folder.

  Where the folder cannot be written, programs are compiled anew each time.
  """
  import jax  # here, so that help starts without it

  if getattr(jax.config, _FOLDER) is not None:
    return
  folder = cache.folder() / "xla"
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError:
    return
  jax.config.update(_FOLDER, str(folder))
  jax.config.update(_LEAST_SECONDS, 0.0)
