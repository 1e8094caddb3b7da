"""The rules of conftest.py hold: a broken guard would go unnoticed."""

import socket
import urllib.request
import warnings

import huggingface_hub
import jax
import jax.numpy as jnp
import pytest

FAR = "192.0.2.1"  # TEST-NET-1: reserved for documentation, nobody's


def _hub_file():
  huggingface_hub.hf_hub_download("nobody/nothing", "config.json")


@pytest.mark.parametrize(
  "reach",
  [
    lambda: socket.create_connection((FAR, 80), timeout=0.1),
    lambda: socket.getaddrinfo("example.com", 80),
    lambda: urllib.request.urlopen(f"http://{FAR}/", timeout=0.1),
    _hub_file,
  ],
  ids=["connect", "resolve", "urllib", "hub"],
)
def test_network_is_refused(reach):
  with pytest.raises(RuntimeError, match="reached for the network"):
    reach()


def test_datagrams_are_refused():
  with (
    socket.socket(type=socket.SOCK_DGRAM) as sender,
    pytest.raises(RuntimeError, match="reached for the network"),
  ):
    sender.sendto(b"", (FAR, 53))


def test_this_machine_can_be_reached():
  with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()


def test_eight_devices():
  assert jax.device_count("cpu") == 8


def test_rank_promotion_raises():
  with pytest.raises(ValueError, match="rank_promotion"):
    jnp.ones((2, 3)) + jnp.ones(3)


def test_warnings_are_errors():
  with pytest.raises(UserWarning, match="loud"):
    warnings.warn("loud", stacklevel=1)
