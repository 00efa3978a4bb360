"""From a trained network to something that runs without what trained it: files, runtimes, and the check that they agree.

Everything takes bytes, RGB uint8 [B, 3, H, W], and returns train ids uint8 [B, H, W]: normalization, enlargement of scores and
argmax are inside.
"""

from segda.deployment.artefact import Artefact, load_artefact
from segda.deployment.program import Accepts
from segda.deployment.record import ArtefactRecord
from segda.deployment.runtime import Runtime
from segda.deployment.runtimes import RUNTIMES, build_runtime
from segda.deployment.shipped import ShippedNetwork

__all__ = [
    "RUNTIMES",
    "Accepts",
    "Artefact",
    "ArtefactRecord",
    "Runtime",
    "ShippedNetwork",
    "build_runtime",
    "load_artefact",
]
