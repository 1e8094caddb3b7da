"""Documents that are already in memory."""

import numpy as np
import pytest

from gemma_scope.activations.corpus.documents import InMemory
from gemma_scope.errors import TextError


def test_texts_and_ids_are_kept():
  found = InMemory(["One.", [2, 300], np.asarray([5, 6, 7])])
  assert len(found) == 3
  assert found[0] == "One."
  assert found[1].tolist() == [2, 300]
  assert found[2].dtype == np.int32


def test_origin_tells_documents_apart():
  origins = [
    InMemory(d).origin["sha256"]
    for d in (["ab", "c"], ["a", "bc"], ["ab"], [[97, 98]])
  ]
  assert len(set(origins)) == 4


@pytest.mark.parametrize("bad", [1.5, [1.5], [[1, 2]]])
def test_what_is_no_document_is_refused(bad):
  with pytest.raises(TextError, match="a text or a row of token ids"):
    InMemory([bad])
