"""What a user types after `import gemma_scope as gs`."""

from gemma_scope.activations.generate import Generation as Generation
from gemma_scope.activations.generate import generate as generate
from gemma_scope.activations.likelihood import nll_change as nll_change
from gemma_scope.activations.run import Capture as Capture
from gemma_scope.activations.run import capture as capture
from gemma_scope.activations.sampling import Sampling as Sampling
from gemma_scope.analysis.attention import (
  attention_patterns as attention_patterns,
)
from gemma_scope.analysis.direct import (
  direct_logit_attribution as direct_logit_attribution,
)
from gemma_scope.analysis.latent_examples import (
  latent_examples as latent_examples,
)
from gemma_scope.analysis.lens import logit_lens as logit_lens
from gemma_scope.analysis.predict import predict as predict
from gemma_scope.analysis.probes import fit_probe as fit_probe
from gemma_scope.analysis.probes import fit_probes as fit_probes
from gemma_scope.attribution.attribute import GradientOptions as GradientOptions
from gemma_scope.attribution.attribute import attribute as attribute
from gemma_scope.attribution.many import attribute_many as attribute_many
from gemma_scope.attribution.patching.result import PatchSweep as PatchSweep
from gemma_scope.attribution.patching.sweep import PatchOptions as PatchOptions
from gemma_scope.attribution.patching.sweep import patch as patch
from gemma_scope.errors import GemmaScopeError as GemmaScopeError
from gemma_scope.model.language_model import LanguageModel as LanguageModel
from gemma_scope.model.language_model import load_language_model
from gemma_scope.model.save import save as save
from gemma_scope.planning.compiling import plan as plan
from gemma_scope.sites import SITES as SITES
from gemma_scope.sites import Site as Site
from gemma_scope.viz.dashboard import Dashboard as Dashboard
from gemma_scope.viz.dashboard import measured_dashboard as measured_dashboard
from gemma_scope.viz.dashboard import stored_dashboard as stored_dashboard
from gemma_scope.viz.explain import explain as explain
from gemma_scope.viz.explanation import Explanation as Explanation
from gemma_scope.viz.patching import PatchingReport as PatchingReport
from gemma_scope.viz.patching import patching_report as patching_report

load = load_language_model
