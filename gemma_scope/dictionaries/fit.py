"""Whether a dictionary fits a model: widths of its sites, layers, name.

A dictionary of the wrong width fails anyway; the error here says which site has
that width, for `attn_out` read as a residual stream is the usual cause.
"""

from typing import Any

from gemma_scope.dictionaries.protocol import About, Dictionary
from gemma_scope.errors import SiteError
from gemma_scope.sites import SITES, Site
from gemma_scope.weights import catalog
from gemma_scope.weights.checkpoint import Sizes

_WIDTHS = {
  "z": "num_heads * head_dim",
  "query": "num_heads * head_dim",
  "mlp_act": "d_ff",
}


def site_width(site: Site, sizes: Any) -> int:
  """How many numbers a vector at a site has.

  Args:
    site: One whose value is a vector for each token.
    sizes: Of the model: `Sizes` or a `GemmaConfig`.
  """
  product = 1
  for name in _WIDTHS.get(site.name, "d_model").split(" * "):
    product *= getattr(sizes, name)
  return product


def check_fits(dictionary: Dictionary, sizes: Sizes | Any, model: str) -> None:
  """Compares a dictionary with the sizes of a model.

  Args:
    dictionary: Any.
    sizes: `Sizes` or a `GemmaConfig`.
    model: The model's name, for errors.

  Raises:
    SiteError: A site's width is another, or its layer is not in the model.
  """
  ends = (
    (dictionary.sites_in, dictionary.width_in),  # type: ignore[attr-defined]
    (dictionary.sites_out, dictionary.width_out),  # type: ignore[attr-defined]
  )
  for sites, width in ends:
    for site in sites:
      if site.layer is not None and site.layer >= sizes.num_layers:
        raise SiteError(
          "The dictionary is of a layer that the model does not have.",
          received=f"{dictionary.about} for {model} of {sizes.num_layers} "
          "layers",
          instead=_other_model(dictionary.about),
        )
      expected = site_width(site, sizes)
      if width != expected:
        raise SiteError(
          f"Vectors at {site} of {model} have {expected} numbers.",
          received=f"{dictionary.about} of {width} numbers",
          instead=_advice(site, width, sizes, dictionary.about),
        )


def check_published_model(dictionary: Dictionary) -> None:
  """`check_fits` against the model that the dictionary is said to be of.

  Of a checkpoint that is not in the catalogue nothing is known here.
  """
  model = dictionary.about.model
  entry = None if model is None else catalog.find(model)
  if model is not None and entry is not None:
    check_fits(dictionary, entry.sizes, model)


def _advice(site: Site, width: int, sizes: Any, about: About) -> str:
  """Which site of the same model, or which model, has this width."""
  names = ("resid_post", "z", "mlp_act", "mlp_write")
  same = [
    f"{n}[{site.layer}]"
    for n in names
    if n in SITES and site_width(Site(n, 0), sizes) == width
  ]
  if same:
    return f"{' or '.join(same)} has {width}"
  models = [
    size
    for size, other in catalog.SIZES.items()
    if site_width(site, other) == width
  ]
  return (
    f"{' or '.join(models) or 'no size of Gemma 3'} has {width} there; "
    + (_other_model(about))
  )


def _other_model(about: About) -> str:
  if about.model is None:
    return "load the model that it was trained on"
  return f'load the model that it was trained on: gs.load("{about.model}")'
