"""Names of machines, and what is refused."""

import importlib.util

import pytest

from gemma_scope import errors
from gemma_scope.planning import find_machine, machines


def test_a_mesh_of_cpu_devices():
  machine = find_machine("cpu:8", (2, 4))
  assert machine.count == 8
  assert dict(machine.mesh.shape) == {"data": 2, "model": 4}
  assert machine.chip.memory > 2**30
  assert machine.chip.flops is None
  assert dict(find_machine("cpu:6").mesh.shape) == {"data": 3, "model": 2}
  assert find_machine("cpu").count == 1


@pytest.mark.parametrize(
  ("name", "match"),
  [
    ("v7:2x2", "There is no such machine"),
    ("v5e", "a topology"),
    ("v5e:banana", "a topology"),
    ("cpu:99", "fewer such devices"),
    ("gpu", "fewer such devices"),
  ],
)
def test_what_is_not_there_is_refused(name, match):
  with pytest.raises(errors.ConfigError, match=match):
    find_machine(name)


def test_a_mesh_must_fit():
  with pytest.raises(errors.ConfigError, match="3x2 for 8 chips"):
    find_machine("cpu:8", (3, 2))


def test_without_the_tpu_compiler(monkeypatch):
  monkeypatch.setattr(machines.importlib.util, "find_spec", lambda _: None)
  with pytest.raises(errors.ConfigError, match="pip install libtpu"):
    machines._tpu.__wrapped__("v5e", "2x2")


@pytest.mark.slow
@pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="needs libtpu"
)
@pytest.mark.parametrize(
  ("name", "count"), [("v5e:4x4", 16), ("v5p:2x2x1", 4), ("v6e:2x2", 4)]
)
def test_tpu_topologies(name, count):
  assert find_machine(name).count == count
