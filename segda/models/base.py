"""The contract that every network keeps."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn

from segda.errors import ConfigError
from segda.models.alignment import FeatureAlignment
from segda.models.widths import Width
from segda.settings import Settings
from segda.types import SegmentationOutput


class ModelConfig(Settings):
    """Settings of one network; each network extends it and gives `name` its own default.

    Attributes:
        initial_weights: names of the fields that only say where initial weights come from. They need defaults. All others make up
            the architecture, and with it what the network costs.
        unnamed_defaults: names of fields that plain data and labels leave out where they have their defaults. So a network can get
            a setting without becoming another one for those who do not use it: what is remembered of its runs stays theirs.
    """

    initial_weights: ClassVar[frozenset[str]] = frozenset()
    unnamed_defaults: ClassVar[frozenset[str]] = frozenset()

    name: str
    widths: tuple[Width, ...] | None = Field(
        None,
        min_length=1,
        description="layers that are narrower than the architecture says: name, channels given, channels taken; `segda slim` "
        "writes them into its checkpoint. Such a network has no initial weights: they come from a checkpoint (start) or are random",
    )

    @model_serializer(mode="wrap")
    def _without_unnamed_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        unnamed = {"widths", *self.unnamed_defaults}
        usual = {name for name in unnamed if getattr(self, name) == fields[name].default}
        return {name: value for name, value in plain.items() if name not in usual}

    def architecture(self) -> dict[str, Any]:
        """Return the identity of the architecture as plain data: every setting but those about initial weights."""
        return self.model_dump(mode="json", exclude=set(self.initial_weights))

    def weights_problem(self) -> str | None:
        """Return why there are no such initial weights, one line, as far as the settings alone say it; None: they may be there.

        A training is refused by it. A network that is measured or continued needs no initial weights.
        """
        return None

    def label(self) -> str:
        """Return the architecture for people: the name, then its other settings; text speaks for itself, and widths have a digest.

        Example:
            >>> class Config(ModelConfig):
            ...     backbone: str = "resnet18"
            ...     width: float = 0.5
            >>> Config(name="some_net").label()
            'some_net (resnet18, width 0.5)'
        """
        others = {name: value for name, value in self.architecture().items() if name not in ("name", "widths")}
        if self.widths is not None:
            others["narrowed"] = hashlib.sha256(json.dumps(self.widths).encode()).hexdigest()[:8]
        words = [
            value if isinstance(value, str) and name != "narrowed" else f"{name} {value}"
            for name, value in others.items()
        ]
        return f"{self.name} ({', '.join(words)})" if words else self.name


class Segmenter(nn.Module, ABC):
    """A segmentation network.

    Attributes:
        Config: the network's settings.
        num_auxiliary: how many auxiliary outputs it has in training mode.
        training_only: names of the submodules that evaluation never runs, e.g. auxiliary heads; neither counted nor shipped.
        trunk_module: name of the submodule whose weights were trained before, beside which all others are heads with a learning
            rate of their own (`optimizer.head_lr_factor`); None: there is none.
        feature_alignment: how it learns the features of a teacher (`distillation.learned: features`); None: it cannot.
        config: what it was built from.
        num_classes: number of train ids.

    A submodule, or the network itself, whose forward pass counts on the widths of layers says so with an attribute `fixed_width`,
    names of its own submodules: these keep the number of channels that they give when a network is made narrower
    (`segda.compression.channels`).
    """

    Config: ClassVar[type[ModelConfig]]
    num_auxiliary: ClassVar[int] = 0
    training_only: ClassVar[tuple[str, ...]] = ()
    trunk_module: ClassVar[str | None] = None
    feature_alignment: ClassVar[type[FeatureAlignment] | None] = None

    def __init__(self, config: Any, *, num_classes: int) -> None:
        """Keep the settings; subclasses build their layers with random weights.

        Args:
            config: an instance of the network's `Config`.
            num_classes: number of train ids, at least 2.

        Raises:
            ConfigError: fewer than two classes.
        """
        super().__init__()
        if num_classes < 2:
            raise ConfigError(f"a segmentation network needs at least 2 classes, got {num_classes}")
        self.config = config
        self.num_classes = num_classes

    def load_initial_weights(self) -> None:
        """Replace random weights by those that the configuration names; a network that has no such setting keeps its own.

        Raises:
            WeightsError: the weights cannot be had or do not fit.
        """

    def trunk_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the trunk, if there is one."""
        if self.trunk_module is not None:
            yield from self.get_submodule(self.trunk_module).parameters()

    def refuse_one_image(self, image: Tensor) -> None:
        """Refuse to train on one image; for networks that normalize pooled features, of which one image has one value.

        Args:
            image: float [B, 3, H, W].

        Raises:
            ConfigError: one image in training mode.
        """
        if self.training and image.shape[0] < 2:
            raise ConfigError(
                f"training {type(self).__name__} needs at least 2 images per batch, got 1: it normalizes pooled features over the "
                "batch; raise batch_size or drop the last, smaller batch"
            )

    @abstractmethod
    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images of any size from 32 x 32 pixels.

        Args:
            image: normalized, float [B, 3, H, W].
            auxiliary: whether to compute the auxiliary outputs and the boundary; unset: in training mode only. A loss that does
                not read them, e.g. the adversarial one on target images, saves their cost with False.

        Returns:
            Logits, at least float32 [B, num_classes, H, W]; `num_auxiliary` auxiliary logits of the same shape, or none; features
            float [B, F, h, w]; of a network that learns where classes meet, boundary logits, at least float32 [B, 1, H, W], with
            the auxiliary ones.
        """
