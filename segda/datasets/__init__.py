"""Data sets, by name. Adding one is a file and a line here; the contract tests then cover it."""

from segda.catalog import Catalog, instance_of
from segda.datasets.base import Sample, SegmentationDataset, resolve_root
from segda.datasets.camvid import CamVid, CamVid12
from segda.datasets.loveda import LoveDA
from segda.datasets.scenes import Scenes

DATASETS: Catalog[SegmentationDataset] = Catalog(
    "data set",
    group="segda.datasets",
    built_in={dataset.name: dataset for dataset in (CamVid(), CamVid12(), LoveDA(), Scenes())},
    check=instance_of(SegmentationDataset),
)

__all__ = ["DATASETS", "Sample", "SegmentationDataset", "resolve_root"]
