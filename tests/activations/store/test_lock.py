"""One writer at a time; one that was killed leaves nothing that holds."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from gemma_scope.activations.store import StoreError
from gemma_scope.activations.store.lock import WriterLock

HOLD = """
import pathlib, sys, time
from gemma_scope.activations.store.lock import WriterLock
held = WriterLock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_writer_is_told_who_holds_it(tmp_path):
  first = WriterLock(tmp_path / "lock")
  with pytest.raises(StoreError, match="Another process is writing") as caught:
    WriterLock(tmp_path / "lock")
  assert f'"process": {os.getpid()}' in caught.value.received
  first.release()
  first.release()
  WriterLock(tmp_path / "lock").release()


def test_a_killed_owner_holds_nothing(tmp_path, caplog):
  path = tmp_path / "lock"
  other = subprocess.Popen(
    [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
  )
  try:
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(StoreError, match=f'"process": {other.pid}'):
      WriterLock(path)
    other.send_signal(signal.SIGKILL)
    other.wait()
    WriterLock(path).release()
  finally:
    other.kill()
    other.communicate()
  assert f'"process": {other.pid}' in caplog.text
  assert path.read_text() == ""


def test_a_file_system_without_locks(tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(fcntl, "flock", refuse)
  with pytest.raises(StoreError, match="no locks"):
    WriterLock(tmp_path / "lock")
