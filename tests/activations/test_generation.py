"""Results show what was written, steered beside unsteered."""

from gemma_scope.activations.generation import Generation, SteeredGeneration
from gemma_scope.activations.likelihood import NllChange


def test_both_texts_and_the_change_are_shown():
  plain = Generation(("a <",), (" plain",), ((9,),))
  effect = NllChange(2.0, 1.5, -0.7, -0.3, 4)
  found = SteeredGeneration(("a <",), (" bent",), ((8,),), plain, effect)
  page = found._repr_html_()
  for part in ("a &lt;", " bent", " plain", "−0.500"):
    assert part in page
  assert repr(found) == "SteeredGeneration([' bent'], unsteered=[' plain'])"
  assert "steered:    bent" in str(found)


def test_without_held_out_texts():
  plain = Generation(("a",), ("b",), ((9,),))
  found = SteeredGeneration(("a",), ("c",), ((8,),), plain, None)
  assert "NLL" not in found._repr_html_()
