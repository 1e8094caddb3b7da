"""The five sizes are those that were published."""

import dataclasses

import pytest

from gemma_scope.errors import CheckpointError, ConfigError
from gemma_scope.model import config as configs
from gemma_scope.weights import catalog

PARAMETERS = {
  "270m": 268_098_176,
  "1b": 999_885_952,
  "4b": 3_880_099_328,
  "12b": 11_765_788_416,
  "27b": 27_009_002_240,
}
# layers, d_model, d_ff, heads, kv heads, head width, s, window, RoPE, context
FACTS = {
  "270m": (18, 640, 2048, 4, 1, 256, 256, 512, 1, 32_768),
  "1b": (26, 1152, 6912, 4, 1, 256, 256, 512, 1, 32_768),
  "4b": (34, 2560, 10240, 8, 4, 256, 256, 1024, 8, 131_072),
  "12b": (48, 3840, 15360, 16, 8, 256, 256, 1024, 8, 131_072),
  "27b": (62, 5376, 21504, 32, 16, 128, 168, 1024, 8, 131_072),
}
FIELDS = (
  "num_layers",
  "d_model",
  "d_ff",
  "num_heads",
  "num_kv_heads",
  "head_dim",
  "query_scalar",
  "window",
  "rope_factor",
  "max_context",
)


@pytest.mark.parametrize("size", FACTS)
def test_sizes_are_the_published_ones(size):
  config = configs.preset(size)
  assert tuple(getattr(config, field) for field in FIELDS) == FACTS[size]
  assert config.vocab_size == 262_144
  assert (config.period, config.norm_eps) == (6, 1e-6)
  assert (config.rope_base_local, config.rope_base_global) == (1e4, 1e6)
  assert config.num_parameters == PARAMETERS[size]


@pytest.mark.parametrize("size", FACTS)
def test_every_catalogued_name_has_its_size(size):
  names = [n for n, entry in catalog.CATALOG.items() if entry.size == size]
  assert len(names) >= 2
  for name in names:
    assert configs.preset(name).num_parameters == PARAMETERS[size]


def test_the_name_a_user_types():
  assert configs.preset("gemma-3-270m").num_parameters == PARAMETERS["270m"]


def test_an_unknown_name_is_refused():
  with pytest.raises(ConfigError, match="gemma-3-3b"):
    configs.preset("gemma-3-3b")


def test_every_sixth_layer_is_global():
  config = configs.preset("1b")
  found = [i for i in range(config.num_layers) if config.is_global(i)]
  assert found == [5, 11, 17, 23]


@pytest.mark.parametrize("size", FACTS)
def test_shapes_tell_the_size(size):
  config = configs.preset(size)
  assert configs.config_of(config.sizes, "here") is config


def test_shapes_of_no_size_are_refused():
  sizes = dataclasses.replace(configs.preset("270m").sizes, num_layers=17)
  with pytest.raises(CheckpointError, match=r"some/file.*num_layers=17"):
    configs.config_of(sizes, "some/file")
