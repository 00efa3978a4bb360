"""Ways of training a segmenter. One file each; a new one is a file and a line in `segda/methods/hosts.py`."""

from segda.catalog import Catalog, subclass_of
from segda.methods.base import Method, MethodConfig, StepInput, StepOutput, TwoDomainConfig
from segda.methods.hosts import BUILT_IN
from segda.methods.mic import Mic

METHODS: Catalog[type[Method]] = Catalog(
    "method",
    group="segda.methods",
    built_in={**BUILT_IN, "mic": Mic},
    check=subclass_of(Method, config=MethodConfig),
)

__all__ = ["METHODS", "Method", "MethodConfig", "StepInput", "StepOutput", "TwoDomainConfig"]
