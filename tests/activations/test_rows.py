"""What counts as a row source; the members are held to it in their tests."""

import pytest

from gemma_scope.activations import RowSource
from gemma_scope.sites import Site
from gemma_scope.testing.synthetic_rows import SyntheticRows

MEMBERS = ("__next__", "state", "restore", "sites", "batch_rows")


def test_a_source_has_all_that_the_protocol_names():
  assert isinstance(SyntheticRows((Site("resid_post", 3),)), RowSource)
  assert isinstance(type("Whole", (), dict.fromkeys(MEMBERS, 0))(), RowSource)


@pytest.mark.parametrize("missing", MEMBERS)
def test_one_that_lacks_something_is_none(missing):
  some = {name: 0 for name in MEMBERS if name != missing}
  assert not isinstance(type("Part", (), some)(), RowSource)
