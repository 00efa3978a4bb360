"""Ways of training a segmenter. One file each; a new one is a file and a line here."""

from segda.catalog import Catalog, subclass_of
from segda.methods.adversarial import Adversarial
from segda.methods.base import Method, MethodConfig, StepInput, StepOutput, TwoDomainConfig
from segda.methods.dacs import Dacs
from segda.methods.joint import Joint
from segda.methods.self_training import SelfTraining
from segda.methods.source_only import SourceOnly
from segda.methods.target_only import TargetOnly

METHODS: Catalog[type[Method]] = Catalog(
    "method",
    group="segda.methods",
    built_in={
        "source_only": SourceOnly,
        "target_only": TargetOnly,
        "adversarial": Adversarial,
        "joint": Joint,
        "self_training": SelfTraining,
        "dacs": Dacs,
    },
    check=subclass_of(Method, config=MethodConfig),
)

__all__ = ["METHODS", "Method", "MethodConfig", "StepInput", "StepOutput", "TwoDomainConfig"]
