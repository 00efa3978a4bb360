"""Several networks on the same images: disagreement, confidence, and the order of the images."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from segda.datasets.cache import DecodedSplit
from segda.side_by_side import SeenImage, seen_by, worst_first
from segda.trained import TrainedNetwork
from segda.types import SegmentationOutput


def seen(name, predictions, confidence):
    maps = np.array(predictions, dtype=np.uint8)[:, None, :]
    sure = np.full(maps.shape, round(255 * confidence), dtype=np.uint8)
    return SeenImage(name, np.zeros((1, maps.shape[2], 3), np.uint8), None, maps, sure)


def test_disagreement_is_the_share_of_networks_that_are_outvoted():
    image = seen("a", [[0, 1, 2], [0, 1, 3], [0, 2, 4], [0, 2, 2]], 0.6)
    assert image.disagreement.tolist() == [[0.0, 0.5, 0.5]]
    assert image.mean_disagreement == pytest.approx(1 / 3)
    assert image.mean_confidences == pytest.approx([0.6] * 4)


def test_images_come_by_disagreement_and_then_by_how_unsure_the_first_network_is():
    images = [
        seen("agreed, sure", [[1, 1], [1, 1]], 0.9),
        seen("agreed, unsure", [[1, 1], [1, 1]], 0.3),
        seen("half", [[1, 1], [1, 2]], 0.5),
        seen("all", [[1, 1], [2, 2]], 0.99),
    ]
    assert [image.name for image in worst_first(images)] == ["all", "half", "agreed, unsure", "agreed, sure"]


class Says(nn.Module):
    """Says one class everywhere with one probability of two, and notes the sizes that it sees."""

    def __init__(self, number, probability):
        super().__init__()
        self.logit = torch.logit(torch.tensor(probability))
        self.number, self.sizes = number, []

    def forward(self, image):
        self.sizes.append(tuple(image.shape[2:]))
        logits = torch.zeros(len(image), 2, *image.shape[2:])
        logits[:, self.number] = self.logit
        return SegmentationOutput(logits, (), logits)


def test_each_network_sees_images_at_its_own_size_and_its_maps_have_that_of_the_image():
    images = np.zeros((2, 40, 48, 3), dtype=np.uint8)
    labels = np.full((2, 40, 48), 7, dtype=np.uint8)
    split = DecodedSplit(images, labels, ("a", "b"), "f")
    networks = [Says(1, 0.8), Says(0, 0.6)]
    sizes = [(40, 48), (64, 96)]

    def opened(place):
        height, width = sizes[place]
        config = SimpleNamespace(data=SimpleNamespace(height=height, width=width))
        return lambda: TrainedNetwork(networks[place], config, torch.device("cpu"), torch.float32)

    first, second = seen_by([opened(0), opened(1)], split)
    assert (first.name, second.name) == ("a", "b")
    assert first.predictions.shape == (2, 40, 48)
    assert [np.unique(map_).tolist() for map_ in first.predictions] == [[1], [0]]
    assert [np.unique(map_).tolist() for map_ in first.confidences] == [[204], [153]]
    assert np.array_equal(second.label, labels[1])
    assert [network.sizes for network in networks] == [[(40, 48)] * 2, [(64, 96)] * 2]
