"""Augmentation: what happens to training images and labels before the network sees them."""

import os

# Albumentations asks its package index for a newer version when imported, unless told not to; training must not need a
# network. Set here because every import of this package comes before the first import of albumentations.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from segda.transforms.augmentation import Augmentation, build_recipe
from segda.transforms.recipes import RECIPES, Recipe, Step

__all__ = ["RECIPES", "Augmentation", "Recipe", "Step", "build_recipe"]
