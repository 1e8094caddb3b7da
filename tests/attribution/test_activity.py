"""Activities, origins and faults of values."""

import dataclasses

import pytest

from gemma_scope.attribution.activity import (
  Activity,
  Fault,
  Node,
  Source,
  activated,
  denumbered,
  first_fault,
  fresh,
  inactive,
  merged,
  numbered,
  renamed,
)

TANH = Source("tanh", "model.py:3 (f)")
GREATER = Source("gt", "model.py:4 (f)", choice=True)


def frozen(own=None, source=TANH, fault=None):
  return Node(1.0, Activity.FROZEN, own=own, source=source, fault=fault)


def fault(kind, line="model.py:5"):
  return Fault("No rule.", kind, line, "a rule")


def test_activities_are_ordered():
  assert Activity.INACTIVE < Activity.FROZEN < Activity.ACTIVE
  assert fresh(1.0).active
  assert frozen().frozen
  node = inactive(1.0)
  assert not node.active
  assert not node.frozen


def test_elementwise_results_keep_the_one_origin_of_their_operands():
  x, y = fresh(1.0), fresh(2.0)
  doubled = activated(2.0, [x, inactive(2.0)], elementwise=True)
  assert doubled.origin is x.origin
  assert activated(3.0, [x, doubled], elementwise=True).origin is x.origin
  both = activated(3.0, [x, y], elementwise=True).origin
  assert both not in (x.origin, y.origin, None)
  assert activated(3.0, [x]).origin is not x.origin


def test_faults_of_operands_come_first():
  sick = fresh(1.0).blamed(fault("sin"))
  result = activated(2.0, [fresh(1.0), sick]).blamed(fault("sort"))
  assert result.fault.kind == "sin"
  assert first_fault([fresh(1.0), sick]) is sick.fault
  assert first_fault([fresh(1.0)]) is None
  assert sick.blamed(None).fault is sick.fault


@pytest.mark.parametrize(
  ("owners", "elementwise", "expected"),
  [
    ((None,), True, None),
    ((None, None), False, None),
    (("x",), True, "x"),
    (("x", None), True, "x"),
    (("x", "x"), True, "x"),
    (("x", "y"), True, "nothing"),
    # A factor moved to other places multiplies nothing.
    (("x",), False, "nothing"),
  ],
)
def test_a_merged_factor_may_multiply_what_all_its_parts_may(
  owners, elementwise, expected
):
  nodes = [inactive(1.0), *[frozen(own) for own in owners]]
  node = merged(2.0, nodes, elementwise=elementwise)
  assert node.frozen
  assert node.source == TANH
  if expected == "nothing":
    assert node.own not in (None, "x", "y")
  else:
    assert node.own == expected


def test_a_merged_factor_keeps_its_parts_faults():
  node = merged(1.0, [frozen(), frozen(source=GREATER, fault=fault("dot"))])
  assert node.fault.kind == "dot"
  assert node.source == TANH


def test_what_has_no_line_of_its_own_gets_that_of_the_call():
  inside = fault("sort", line="")
  node = frozen(source=Source("exp", ""), fault=inside).located("model.py:9")
  assert node.source.line == node.fault.line == "model.py:9"
  assert node.located("other.py:1") == node
  assert fresh(1.0).located("model.py:9").fault is None


def test_renamed_origins_are_new_and_stay_equal():
  x = fresh(1.0)
  gate, other = frozen(own=x.origin), fresh(2.0)
  a, b, c, d = renamed([x, gate, other, inactive(0.0)])
  assert a.origin == b.own
  assert len({a.origin, c.origin, x.origin, other.origin}) == 4
  assert d.origin is None
  assert (a.value, b.value, c.value) == (1.0, 1.0, 2.0)


def test_numbered_nodes_are_equal_for_equal_structure():
  def structure():
    x = fresh(object())
    return [x, frozen(own=x.origin), inactive(object(), 0.0), fresh(object())]

  first, origins = numbered(structure())
  second, _ = numbered(structure())
  assert first == second
  assert hash(first) == hash(second)
  assert len(origins) == 2
  x = fresh(1.0)
  shared, _ = numbered([x, frozen(own=x.origin), inactive(1.0, 0.0), x])
  assert shared != first


def test_denumbered_results_point_to_the_callers_origins():
  x, y = fresh(1.0), fresh(2.0)
  (a, b), origins = numbered([x, y])
  inner = object()
  results = [b, a, Node(None, Activity.ACTIVE, inner), frozen(own=inner)]
  back = denumbered(results, origins)
  assert [n.origin for n in back[:2]] == [y.origin, x.origin]
  assert back[2].origin == back[3].own
  # Two calls of one program must not share what arises inside.
  again = denumbered(results, origins)
  assert again[2].origin not in (inner, back[2].origin)


def test_nodes_are_values():
  with pytest.raises(dataclasses.FrozenInstanceError):
    fresh(1.0).value = 2.0
  assert fresh(1.0).on(2.0).value == 2.0
