"""Ways of training a segmenter that stand by themselves. One file each; a new one is a file and a line here.

They stand apart from `METHODS`, which has them too, for those that are put on top of one and name it in their settings.
"""

from segda.catalog import Catalog, subclass_of
from segda.methods.adversarial import Adversarial
from segda.methods.base import Method, MethodConfig
from segda.methods.corte import Corte
from segda.methods.dacs import Dacs
from segda.methods.external_labels import ExternalLabels
from segda.methods.fda import Fda
from segda.methods.fine_tune import FineTune
from segda.methods.fsda import Fsda
from segda.methods.joint import Joint
from segda.methods.lse import Lse
from segda.methods.min_entropy import MinEntropy
from segda.methods.naae import Naae
from segda.methods.pixda import Pixda
from segda.methods.self_training import SelfTraining
from segda.methods.source_only import SourceOnly
from segda.methods.target_only import TargetOnly

BUILT_IN: dict[str, type[Method]] = {
    "source_only": SourceOnly,
    "target_only": TargetOnly,
    "adversarial": Adversarial,
    "joint": Joint,
    "naae": Naae,
    "fsda": Fsda,
    "fine_tune": FineTune,
    "min_entropy": MinEntropy,
    "fda": Fda,
    "self_training": SelfTraining,
    "dacs": Dacs,
    "lse": Lse,
    "external_labels": ExternalLabels,
    "corte": Corte,
    "pixda": Pixda,
}
HOSTS: Catalog[type[Method]] = Catalog(
    "host method", group="segda.methods", built_in=BUILT_IN, check=subclass_of(Method, config=MethodConfig)
)
