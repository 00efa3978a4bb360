"""Real-time semantic segmentation that works in another domain than the labelled one.

What a notebook needs is here, and imported when it is first used:

>>> import segda
>>> "adversarial" in segda.METHODS
True
"""

from typing import TYPE_CHECKING

from segda.lazy import exports

if TYPE_CHECKING:
    from segda.checkpoint import load_segmenter
    from segda.compression.curve import prune_curve
    from segda.compression.sharing import load_shared, share_weights
    from segda.compression.slimming import slim_checkpoint
    from segda.config import TrainConfig
    from segda.cost_comparison import compare_costs
    from segda.datasets import DATASETS, SegmentationDataset
    from segda.deployment import Artefact, load_artefact
    from segda.discriminators import DISCRIMINATORS
    from segda.efficiency import profile_segmenter
    from segda.errors import ConfigError, SegdaError
    from segda.evaluation import evaluate
    from segda.exporting import export
    from segda.file_prediction import predict_files
    from segda.loading import load_config
    from segda.losses import LOSSES, Loss, LossConfig, SupervisedLoss, mean
    from segda.methods import METHODS, Method, MethodConfig, StepInput, StepOutput
    from segda.models import MODELS, ModelConfig, Segmenter, build_segmenter
    from segda.models.trunks import BACKBONES
    from segda.prediction import predict
    from segda.teaching import teach
    from segda.training import train
    from segda.transforms import RECIPES
    from segda.tunable import Choice, Range
    from segda.types import SegmentationOutput
    from segda.validators import VALIDATORS

__all__ = [
    "BACKBONES",
    "DATASETS",
    "DISCRIMINATORS",
    "LOSSES",
    "METHODS",
    "MODELS",
    "RECIPES",
    "VALIDATORS",
    "Artefact",
    "Choice",
    "ConfigError",
    "Loss",
    "LossConfig",
    "Method",
    "MethodConfig",
    "ModelConfig",
    "Range",
    "SegdaError",
    "SegmentationDataset",
    "SegmentationOutput",
    "Segmenter",
    "StepInput",
    "StepOutput",
    "SupervisedLoss",
    "TrainConfig",
    "build_segmenter",
    "compare_costs",
    "evaluate",
    "export",
    "load_artefact",
    "load_config",
    "load_segmenter",
    "load_shared",
    "mean",
    "predict",
    "predict_files",
    "profile_segmenter",
    "prune_curve",
    "share_weights",
    "slim_checkpoint",
    "teach",
    "train",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "segda.checkpoint": ("load_segmenter",),
        "segda.compression.curve": ("prune_curve",),
        "segda.compression.sharing": ("load_shared", "share_weights"),
        "segda.compression.slimming": ("slim_checkpoint",),
        "segda.config": ("TrainConfig",),
        "segda.cost_comparison": ("compare_costs",),
        "segda.datasets": ("DATASETS", "SegmentationDataset"),
        "segda.deployment": ("Artefact", "load_artefact"),
        "segda.discriminators": ("DISCRIMINATORS",),
        "segda.efficiency": ("profile_segmenter",),
        "segda.errors": ("ConfigError", "SegdaError"),
        "segda.evaluation": ("evaluate",),
        "segda.exporting": ("export",),
        "segda.file_prediction": ("predict_files",),
        "segda.loading": ("load_config",),
        "segda.losses": ("LOSSES", "Loss", "LossConfig", "SupervisedLoss", "mean"),
        "segda.methods": ("METHODS", "Method", "MethodConfig", "StepInput", "StepOutput"),
        "segda.models": ("MODELS", "ModelConfig", "Segmenter", "build_segmenter"),
        "segda.models.trunks": ("BACKBONES",),
        "segda.prediction": ("predict",),
        "segda.teaching": ("teach",),
        "segda.training": ("train",),
        "segda.transforms": ("RECIPES",),
        "segda.tunable": ("Choice", "Range"),
        "segda.types": ("SegmentationOutput",),
        "segda.validators": ("VALIDATORS",),
    },
)
