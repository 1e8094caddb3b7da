"""Names from the hub's cache, folders by content, into shards."""

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub import errors as hub_errors
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np
from penzai import pz
import pytest

from gemma_scope import dictionaries as gsd
from gemma_scope.dictionaries import loading as load_lib
from gemma_scope.dictionaries.arrays import is_mapped
from gemma_scope.errors import CheckpointError, ConfigError, SiteError
from gemma_scope.testing import dictionaries as make
from gemma_scope.testing import dictionary_files as files

REPOSITORY = "google/gemma-scope-2-270m-pt"
FOLDER = "resid_post/layer_12_width_16k_l0_medium"
NAME = f"gemma-scope-2-270m-pt/{FOLDER}"
CLT = "clt/width_262k_l0_big"


@pytest.fixture
def hub(tmp_path, monkeypatch):
  """An empty hub cache; downloads are refused, but written down."""
  cache = tmp_path / "hub"
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
  asked = []

  def download(repository, name, *, revision):
    asked.append((repository, name, revision))
    found = hub.remote.get(name)
    if found is None:
      response = _Response()
      raise hub_errors.RemoteEntryNotFoundError("404", response=response)
    return (
      files.fill_hub_cache(cache, repository, found, name.rpartition("/")[0])
      / name.rpartition("/")[2]
    )

  def hub():
    return asked

  hub.remote = {}
  hub.cache = cache
  monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
  monkeypatch.setattr(
    huggingface_hub,
    "try_to_load_from_cache",
    _with_cache(huggingface_hub.try_to_load_from_cache, cache),
  )
  return hub


def _with_cache(function, cache):
  def call(repository, name, revision):
    return function(repository, name, cache_dir=cache, revision=revision)

  return call


class _Response:
  def __init__(self):
    self.status_code = 404
    self.headers = {}
    self.request = None


def single(tmp_path, **config):
  arrays = files.random_layer(640, 64, 640)
  folder = tmp_path / "made"
  return files.write_single(folder, arrays, config or None), arrays


def test_cached_dictionary_needs_no_request(hub, tmp_path):
  folder, arrays = single(tmp_path, type="sae", l0=60)
  files.fill_hub_cache(hub.cache, REPOSITORY, folder, FOLDER)
  sae = gsd.load(NAME)
  assert hub() == []
  assert str(sae.site) == "resid_post[12]"
  assert (sae.about.name, sae.about.l0) == (NAME, 60)
  assert sae.about.model == "gemma-3-270m"
  np.testing.assert_array_equal(
    sae.w_enc.unwrap("input", "latents"), arrays["w_enc"]
  )
  assert not is_mapped(sae)


def test_only_what_is_needed_is_fetched(hub, tmp_path):
  folder, _ = single(tmp_path)
  files.write_examples(folder, 4)
  hub.remote[f"{FOLDER}/params.safetensors"] = folder
  gsd.load(NAME)
  assert [name for _, name, _ in hub()] == [
    f"{FOLDER}/params.safetensors",
    f"{FOLDER}/config.json",
  ]
  assert {r for r, _, _ in hub()} == {REPOSITORY}
  # The commit of the first file is taken for the others.
  assert [revision for *_, revision in hub()] == ["main", "c0ffee" + "0" * 34]


def test_what_was_fetched_once_pins_the_commit(hub, tmp_path):
  folder, _ = single(tmp_path, type="sae")
  other = f"{FOLDER}_seed_1"
  files.fill_hub_cache(hub.cache, REPOSITORY, folder, other)
  hub.remote[f"{FOLDER}/params.safetensors"] = folder
  hub.remote[f"{FOLDER}/config.json"] = folder
  gsd.load(NAME)
  assert {revision for *_, revision in hub()} == {"c0ffee" + "0" * 34}


def test_revision_is_passed_on(hub, tmp_path):
  folder, _ = single(tmp_path, type="sae")
  hub.remote[f"{FOLDER}/params.safetensors"] = folder
  gsd.load(NAME, revision="v2")
  assert hub()[0][2] == "v2"


def test_examples_are_fetched_when_asked_for(hub, tmp_path):
  folder, _ = single(tmp_path)
  files.write_examples(folder, 4)
  hub.remote[f"{FOLDER}/examples.safetensors"] = folder
  assert gsd.load_examples(NAME).num_latents == 4
  assert [n for _, n, _ in hub()] == [f"{FOLDER}/examples.safetensors"]


def test_missing_on_the_hub(hub):
  with pytest.raises(CheckpointError, match=r"params\.safetensors: 404"):
    gsd.load(NAME)


def test_offline(hub, monkeypatch):
  def offline(*_, **__):
    raise OSError("no network here")

  monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
  with pytest.raises(CheckpointError, match="no network here"):
    gsd.load(NAME)


def test_clt_from_the_hub(hub, tmp_path):
  layers = files.random_layers(18, 640, 4)
  folder = files.write_layers(tmp_path / "made", layers)
  files.fill_hub_cache(hub.cache, REPOSITORY, folder, CLT)
  hub.remote[f"{CLT}/none"] = folder
  clt = gsd.load(f"gemma-scope-2-270m-pt/{CLT}")
  assert len(clt.parts) == 18
  assert clt.about.model == "gemma-3-270m"
  assert [n for _, n, _ in hub()] == [f"{CLT}/config.json"]


def test_width_of_another_site_is_refused(hub, tmp_path):
  """attn_out is the input of o_proj: 1,024 numbers, not 640."""
  arrays = files.random_layer(1024, 64, 1024)
  folder = files.write_single(tmp_path / "made", arrays, {"type": "sae"})
  files.fill_hub_cache(hub.cache, REPOSITORY, folder, FOLDER)
  with pytest.raises(SiteError, match=r"(?s)640 numbers.*z\[12\] has 1024"):
    gsd.load(NAME)


def test_width_of_another_model_is_refused(hub, tmp_path):
  arrays = files.random_layer(1152, 64, 1152)
  folder = files.write_single(tmp_path / "made", arrays, {"type": "sae"})
  files.fill_hub_cache(hub.cache, REPOSITORY, folder, FOLDER)
  with pytest.raises(SiteError, match="1b has 1152 there"):
    gsd.load(NAME)


def test_layer_that_the_model_lacks_is_refused(tmp_path):
  config = {"type": "sae", "model_name": "gemma-3-270m"}
  arrays = files.random_layer(640, 64, 640)
  folder = files.write_single(
    tmp_path / "resid_post/layer_18_width_16k_l0_big", arrays, config
  )
  with pytest.raises(SiteError, match="a layer that the model does not have"):
    gsd.load(folder)


def test_wide_dictionary_stays_in_its_files(tmp_path, monkeypatch):
  layers = files.random_layers(3, 24, 32)
  folder = files.write_layers(tmp_path / "clt/width_262k_l0_big", layers)
  monkeypatch.setattr(load_lib, "_LARGE_BYTES", 1000)
  wide, small = gsd.load(folder), gsd.load(folder, mapped=False)
  assert is_mapped(wide)
  assert not is_mapped(small)
  x = np.random.default_rng(0).standard_normal((3, 5, 24)).astype(np.float32)
  np.testing.assert_allclose(wide(x), small(x), atol=1e-5)
  np.testing.assert_array_equal(wide.encode(x), small.encode(x))
  np.testing.assert_array_equal(
    wide.encode_at(1, x[1]), small.encode_at(1, x[1])
  )
  with pytest.raises(ConfigError, match="inside a compiled function"):
    jax.jit(wide.decode)(wide.encode(x))


def test_mapped_decode_reads_active_rows_only(tmp_path):
  """What is not active may even be damaged."""
  layers = files.random_layers(3, 24, 32)
  for arrays in layers:
    arrays["threshold"][:16] = 1e9
    arrays["w_dec"][:16, 2] = np.nan
  folder = files.write_layers(tmp_path / "clt/width_262k_l0_big", layers)
  clt = gsd.load(folder, mapped=True)
  x = np.random.default_rng(0).standard_normal((3, 5, 24)).astype(np.float32)
  assert np.isfinite(clt(x)).all()


def test_into_shards(tmp_path):
  arrays = files.random_layer(640, 64, 640)
  mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"))
  placed = files.write_single(tmp_path / FOLDER, arrays)
  sae = gsd.load(placed, mesh=mesh, dtype="bfloat16")
  shard = sae.w_dec.data_array.addressable_shards[0].data
  assert shard.shape == (16, 640)
  assert sae.w_dec.dtype == jnp.bfloat16
  expected = arrays["w_dec"].astype(jnp.bfloat16)
  np.testing.assert_array_equal(sae.w_dec.unwrap("latents", "output"), expected)


@pytest.mark.parametrize("write", ["own", "saelens", "gemma scope 1"])
def test_folder_is_recognised_by_content(write, tmp_path):
  sae = gsd.fold_input_bias(make.random_sae())
  if write == "own":
    folder = gsd.dictionary_to_folder(sae, tmp_path / "d")
  elif write == "saelens":
    folder = gsd.dictionary_to_saelens(sae, tmp_path / "d")
  else:
    place = "gemma-scope-2b-pt-res/layer_3/width_16k/average_l0_82"
    arrays = files.random_layer(32, 64, 32)
    folder = files.write_gemma_scope_1(tmp_path / place, arrays)
  loaded = gsd.load(str(folder))
  assert isinstance(loaded, gsd.Sae)
  assert str(loaded.site) == "resid_post[3]"
  assert isinstance(loaded.w_enc, pz.nx.NamedArray)


def test_no_dictionary_here(tmp_path):
  (tmp_path / "model.txt").write_text("hello")
  with pytest.raises(CheckpointError, match=r"holds model\.txt"):
    gsd.load(tmp_path)
  files.write_single(tmp_path / FOLDER, files.random_layer(8, 9, 8))
  with pytest.raises(CheckpointError, match=f"1 dictionaries below.*{FOLDER}"):
    gsd.load(tmp_path)


def test_no_such_folder():
  with pytest.raises(CheckpointError, match="no such folder"):
    gsd.load("./nowhere")


def test_suites(tmp_path, monkeypatch):
  folder = gsd.dictionary_to_folder(make.random_sae(), tmp_path / "one")
  opened = {"one": load_lib.open_folder(folder)}
  monkeypatch.setitem(load_lib.SUITES, "mine", opened.__getitem__)
  assert gsd.load("mine/one").site == gsd.load(folder).site


def test_dtype(tmp_path):
  with pytest.raises(ConfigError, match="floating-point"):
    gsd.load(tmp_path, dtype="int8")


def test_gs_name():
  import gemma_scope as gs

  assert gs.dictionaries.load is gsd.load
  assert gs.dictionaries.list(size="270m", group="clt")
