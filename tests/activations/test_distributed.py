"""Several processes at one capture, and one process on its own."""

import dataclasses
import os
import pathlib
import socket
import subprocess
import sys
import types

import jax
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import pytest

from gemma_scope.activations import distributed
from gemma_scope.activations.distributed import Host
from gemma_scope.activations.store import Store, verify
from gemma_scope.errors import ConfigError
from tests.activations import two_hosts
from tests.activations.store.tiny_capture import PACKING, capture, make

ROOT = pathlib.Path(__file__).resolve().parents[2]


def free_port() -> int:
  with socket.socket() as one:
    one.bind(("127.0.0.1", 0))
    return one.getsockname()[1]


def run_both(path: pathlib.Path, mode: str) -> None:
  """Captures with two processes of their own devices."""
  devices = 2 if mode == "together" else 1
  flags = f"--xla_force_host_platform_device_count={devices}"
  command = [sys.executable, "-m", "tests.activations.two_hosts", str(path)]
  port = str(free_port())
  processes = [
    subprocess.Popen(
      [*command, port, str(index), mode],
      cwd=ROOT,
      env=os.environ | {"XLA_FLAGS": flags},
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]
  for one in processes:
    _, errors = one.communicate(timeout=300)
    assert one.returncode == 0, errors


def capture_alone(path: pathlib.Path, mode: str) -> None:
  """The same text in this process, at the same batch shape per device."""
  if mode == "alone":
    capture(path, make(two_hosts.lm_on(None)))
    return
  mesh = distributed.make_mesh((2, 2))
  packing = dataclasses.replace(PACKING, batch_size=2 * PACKING.batch_size)
  capture(path, make(two_hosts.lm_on(mesh), packing=packing))


@pytest.mark.parametrize("mode", ["alone", "together"])
def test_two_processes_write_what_one_writes(tmp_path, mode):
  run_both(tmp_path / "two", mode)
  capture_alone(tmp_path / "one", mode)
  store = Store.open(tmp_path / "two")
  assert min(store.extent) > 0.3 * store.num_rows
  assert verify(tmp_path / "two").rows == verify(tmp_path / "one").rows
  found = two_hosts.by_place(tmp_path / "two")
  assert found == two_hosts.by_place(tmp_path / "one")


def test_one_process():
  assert not distributed.in_step(None)
  assert not distributed.in_step(distributed.make_mesh((4, 2)))
  assert distributed.gather([3, 4]).tolist() == [[3, 4]]
  distributed.wait_for_all("alone")


def test_meshes():
  assert distributed.make_mesh((1, 1)) is None
  whole = distributed.make_mesh(None)
  assert whole is not None
  assert whole.shape == {"data": 8, "model": 1}
  part = distributed.make_mesh((2, 3))
  assert part is not None
  assert part.shape == {"data": 2, "model": 3}
  with pytest.raises(ConfigError, match=r"not so many devices(.|\n)*8 devices"):
    distributed.make_mesh((9, 1))


@pytest.mark.parametrize(
  "spec", [("data", "model"), (None, "model"), ("data",)]
)
def test_rows_that_lie_on_several_devices(spec):
  mesh = distributed.make_mesh((4, 2))
  assert mesh is not None
  values = np.arange(8 * 6.0).reshape(8, 6)
  array = jax.device_put(values, NamedSharding(mesh, PartitionSpec(*spec)))
  np.testing.assert_array_equal(distributed.local_rows(array), values)


def seen_from(devices, array):
  """An array as a process sees it that has only some of the devices."""
  shards = [s for s in array.addressable_shards if s.device in devices]
  return types.SimpleNamespace(
    is_fully_addressable=False,
    addressable_shards=shards[::-1],
    shape=array.shape,
    sharding=array.sharding,
  )


@pytest.mark.parametrize("spec", [("data", "model"), ("data",)])
def test_rows_that_lie_here_and_elsewhere(spec):
  mesh = distributed.make_mesh((4, 2))
  assert mesh is not None
  values = np.arange(8 * 6.0).reshape(8, 6)
  array = jax.device_put(values, NamedSharding(mesh, PartitionSpec(*spec)))
  here = seen_from(set(mesh.devices[2:].flat), array)
  np.testing.assert_array_equal(distributed.local_rows(here), values[4:])


def test_columns_that_lie_elsewhere():
  mesh = distributed.make_mesh((4, 2))
  assert mesh is not None
  spec = PartitionSpec("data", "model")
  array = jax.device_put(np.zeros((8, 6)), NamedSharding(mesh, spec))
  with pytest.raises(ConfigError, match="cut in pieces"):
    distributed.local_rows(seen_from(set(mesh.devices[:, 0]), array))


@pytest.mark.parametrize(("index", "count"), [(2, 2), (-1, 3), (0, 0)])
def test_no_such_process(index, count):
  with pytest.raises(ConfigError, match="no such process"):
    Host(index, count)


def test_processes_that_do_not_find_one_another(monkeypatch):
  def fail(*_):
    raise RuntimeError("barrier timed out\nwith details")

  monkeypatch.setattr(jax.distributed, "initialize", fail)
  with pytest.raises(ConfigError, match="did not find one another"):
    distributed.start("127.0.0.1:1", count=2, index=0)
