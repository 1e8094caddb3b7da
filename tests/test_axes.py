from gemma_scope import axes


def test_every_axis_is_explained_once():
  names = [
    value
    for name, value in vars(axes).items()
    if name.isupper() and isinstance(value, str)
  ]
  assert sorted(names) == sorted(axes.GLOSSARY)
  assert all(axes.GLOSSARY.values())
