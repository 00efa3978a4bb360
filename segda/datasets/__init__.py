"""Data sets, by name. Adding one is a file and a line here; the contract tests then cover it."""

from segda.catalog import Catalog, instance_of
from segda.datasets.base import Sample, SegmentationDataset, resolve_root
from segda.datasets.camvid import CamVid, CamVid12
from segda.datasets.cityscapes import Cityscapes
from segda.datasets.described import described_dataset
from segda.datasets.gta5 import GTA5
from segda.datasets.idda import IDDA
from segda.datasets.loveda import LoveDA
from segda.datasets.scenes import Scenes
from segda.datasets.synthia import Synthia

DATASETS: Catalog[SegmentationDataset] = Catalog(
    "data set",
    group="segda.datasets",
    built_in={
        dataset.name: dataset
        for dataset in (CamVid(), CamVid12(), Cityscapes(), GTA5(), IDDA(), LoveDA(), Scenes(), Synthia())
    },
    check=instance_of(SegmentationDataset),
    describe=described_dataset,
)

__all__ = ["DATASETS", "Sample", "SegmentationDataset", "resolve_root"]
