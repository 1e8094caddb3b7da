"""`gs.lrp`: relevance propagation as a transform, its rules and tables.

    relevance = x * jax.grad(gs.lrp.transform(f, gs.lrp.ATTN_LRP))(x)

LRP is reported to be patented technology, free for research.
"""

from gemma_scope.attribution.composites import ATTN_LRP as ATTN_LRP
from gemma_scope.attribution.composites import CP_LRP as CP_LRP
from gemma_scope.attribution.composites import DEEPLIFT as DEEPLIFT
from gemma_scope.attribution.composites import FROZEN as FROZEN
from gemma_scope.attribution.composites import GRADIENT as GRADIENT
from gemma_scope.attribution.composites import LRP_EPSILON as LRP_EPSILON
from gemma_scope.attribution.composites import LRP_GAMMA as LRP_GAMMA
from gemma_scope.attribution.composites import RuleTable as RuleTable
from gemma_scope.attribution.deeplift import deep_lift as deep_lift
from gemma_scope.attribution.emission import RuleError as RuleError
from gemma_scope.attribution.rescale import Rescale as Rescale
from gemma_scope.attribution.rules import AlphaBeta as AlphaBeta
from gemma_scope.attribution.rules import Epsilon as Epsilon
from gemma_scope.attribution.rules import Gamma as Gamma
from gemma_scope.attribution.rules import Half as Half
from gemma_scope.attribution.rules import Identity as Identity
from gemma_scope.attribution.rules import Native as Native
from gemma_scope.attribution.rules import ProductRule as ProductRule
from gemma_scope.attribution.rules import Softmax as Softmax
from gemma_scope.attribution.rules import Stop as Stop
from gemma_scope.attribution.rules import UnaryRule as UnaryRule
from gemma_scope.attribution.rules import WSquare as WSquare
from gemma_scope.attribution.rules import ZPlus as ZPlus
from gemma_scope.attribution.scopes import scope as scope
from gemma_scope.attribution.surrogate import same_value as same_value
from gemma_scope.attribution.surrogate import stabilise as stabilise
from gemma_scope.attribution.transform import transform as transform
