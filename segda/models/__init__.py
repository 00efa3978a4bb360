"""Segmentation networks. One file each; a new one is a file and a line here."""

from segda.catalog import Catalog, subclass_of
from segda.models.base import ModelConfig, Segmenter
from segda.models.bisenet_v1 import BiSeNetV1
from segda.models.bisenet_v2 import BiSeNetV2
from segda.models.ddrnet import DDRNet23Slim
from segda.models.deeplab_v2 import DeepLabV2, DeepLabV2Multi
from segda.models.efficientvit_seg import EfficientViTSeg
from segda.models.fast_scnn import FastSCNN
from segda.models.fcn8s import FCN8s
from segda.models.pidnet import PIDNetS
from segda.models.sctnet import SCTNet
from segda.models.segformer import SegFormer, SegFormerB0
from segda.models.stdc import STDC
from segda.models.widths import narrow

MODELS: Catalog[type[Segmenter]] = Catalog(
    "network",
    group="segda.models",
    built_in={
        "bisenet_v1": BiSeNetV1,
        "bisenet_v2": BiSeNetV2,
        "ddrnet_23_slim": DDRNet23Slim,
        "deeplab_v2": DeepLabV2,
        "deeplab_v2_multi": DeepLabV2Multi,
        "efficientvit_seg": EfficientViTSeg,
        "fast_scnn": FastSCNN,
        "fcn8s": FCN8s,
        "pidnet_s": PIDNetS,
        "sctnet": SCTNet,
        "segformer": SegFormer,
        "segformer_b0": SegFormerB0,
        "stdc": STDC,
    },
    check=subclass_of(Segmenter, config=ModelConfig),
)

# What a configuration that names no network means.
USUAL_MODEL = "bisenet_v1"


def build_segmenter(config: ModelConfig, *, num_classes: int, pretrained: bool = True) -> Segmenter:
    """Build a network, in training mode on the CPU.

    Args:
        config: settings of a network in `MODELS`.
        num_classes: number of train ids, at least 2.
        pretrained: whether to load the initial weights that the configuration names; without them all weights are random, for a
            network whose weights come from a checkpoint or do not matter. Narrowed networks have none.

    Raises:
        ConfigError: unknown network, fewer than two classes, or widths that are not those of layers of the network.
        WeightsError: the weights cannot be had or do not fit.
    """
    segmenter = MODELS[config.name](config, num_classes=num_classes)
    if config.widths is not None:
        narrow(segmenter, config.widths)
    elif pretrained:
        segmenter.load_initial_weights()
    return segmenter


__all__ = ["MODELS", "USUAL_MODEL", "ModelConfig", "Segmenter", "build_segmenter"]
