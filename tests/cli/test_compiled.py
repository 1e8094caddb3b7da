import jax
import pytest

from gemma_scope.cli import compiled

OPTION = "jax_compilation_cache_dir"
SECONDS = "jax_persistent_cache_min_compile_time_secs"


@pytest.fixture(autouse=True)
def _settings(monkeypatch, tmp_path):
  """A cache folder of the test's own; JAX's settings as before at the end."""
  before = {name: getattr(jax.config, name) for name in (OPTION, SECONDS)}
  monkeypatch.setenv("GEMMA_SCOPE_CACHE", str(tmp_path / "cache"))
  yield
  for name, value in before.items():
    jax.config.update(name, value)


def test_programs_are_kept_beside_the_weights(tmp_path):
  jax.config.update(OPTION, None)
  compiled.keep_compiled_programs()
  assert getattr(jax.config, OPTION) == str(tmp_path / "cache" / "xla")
  assert (tmp_path / "cache" / "xla").is_dir()


def test_choice_of_the_user_goes_first(tmp_path):
  jax.config.update(OPTION, str(tmp_path / "mine"))
  compiled.keep_compiled_programs()
  assert getattr(jax.config, OPTION) == str(tmp_path / "mine")


def test_nothing_is_kept_where_nothing_can_be_written(tmp_path):
  (tmp_path / "cache").write_text("a file where the folder would be")
  jax.config.update(OPTION, None)
  compiled.keep_compiled_programs()
  assert getattr(jax.config, OPTION) is None
