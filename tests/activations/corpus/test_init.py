"""What the package offers, without importing what reads files before."""

import subprocess
import sys

from gemma_scope.activations import corpus


def test_every_name_is_there():
  for name in dir(corpus):
    assert getattr(corpus, name).__doc__ or name == "CHAT_PREFIX"
  assert not hasattr(corpus, "Corpora")


def test_a_harvest_does_not_import_what_reads_files():
  program = (
    "import sys; import gemma_scope.activations.harvest; "
    "sys.exit('grain' in sys.modules)"
  )
  assert subprocess.run([sys.executable, "-c", program]).returncode == 0
