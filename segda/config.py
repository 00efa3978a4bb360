"""The configuration of one training run: everything that decides its result, and where it runs.

A configuration is frozen, refuses unknown keys and has a fingerprint. Fields that only say where data lie or how fast the
machine reads them (`root`, `workers`, `device`) are left out of the fingerprint: moving a data set re-runs nothing.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, SerializeAsAny, model_validator

from segda.batch_norm import Schedule, Variance
from segda.compression.pruning import PruningConfig
from segda.compression.schedules import NO_PRUNING
from segda.config_problems import LocatedError
from segda.datasets import DATASETS
from segda.datasets.external_labels import digest_in
from segda.errors import SegdaError
from segda.files import expanded, sha256_of
from segda.losses import LOSSES, USUAL_LOSS, LossConfig
from segda.methods import METHODS
from segda.methods.base import MethodConfig
from segda.models import MODELS, USUAL_MODEL, ModelConfig
from segda.named import ConfigOf, OneOf
from segda.names import nearest
from segda.optim import OPTIMIZERS, USUAL_OPTIMIZER, AdamConfig, OptimizerConfig
from segda.settings import Settings
from segda.torch_files import read_torch_file
from segda.transforms import RECIPES
from segda.transforms.styles import NO_STYLE, STYLES, StyleConfig
from segda.tunable import Choice, Range
from segda.validators import USUAL_VALIDATORS, VALIDATORS

# Beyond these there is no training, only a mistake, or a machine that dies of it.
MOST_SEEDS = 2**32 - 1  # what every generator of random numbers takes
_MOST_PIXELS = 16_384  # of a side
_MOST_STEPS = 10**9
_FEATURE_TEMPERATURE = 4.0  # that SCTNet was published with
# Where things lie and how fast they are read, as opposed to what is computed.
_PLACE_FIELDS = frozenset({"root", "workers", "device", "cache", "weights_file", "folder", "checkpoint"})


class DomainConfig(Settings):
    """One domain of one data set."""

    dataset: Annotated[str, OneOf(DATASETS)] = Field(description="name of a data set")
    domain: str = Field(description="domain inside the data set, e.g. urban, rural, day, dusk")
    root: Path | None = Field(None, description="folder of the data set; unset: the variable SEGDA_<DATASET>_ROOT")

    @model_validator(mode="after")
    def _domain_exists(self) -> Self:
        domains = DATASETS[self.dataset].domains
        if self.domain not in domains:
            raise ValueError(
                f"data set {self.dataset} has no domain {self.domain!r}{nearest(self.domain, domains)}; "
                f"it has: {', '.join(domains)}"
            )
        return self


class FewShotConfig(Settings):
    """The few target training images whose labels a few-shot method may use."""

    images: int = Field(
        1,
        ge=1,
        le=10**6,
        description="how many; a larger draw holds the smaller ones; without names, drawn from the target's training images",
    )
    seed: int = Field(
        0,
        ge=0,
        le=MOST_SEEDS,
        description="of the draw; apart from the run's seed, so that repetitions use the same images",
    )
    per: Literal["image", "scene"] = Field(
        "image",
        description="whether so many images are drawn in all, or of each scene or sequence that the data set knows",
    )
    names: tuple[str, ...] | None = Field(None, min_length=1, description="names of the images, instead of a draw")

    @model_validator(mode="before")
    @classmethod
    def _images_are_those_named(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or not isinstance(given.get("names"), list | tuple):
            return given
        return {"images": len(given["names"]), **given}

    @model_validator(mode="after")
    def _names_are_counted(self) -> Self:
        if self.names is None:
            return self
        # By values: who reads a configuration that was written finds every field in it.
        if self.seed != type(self).model_fields["seed"].default or self.per == "scene":
            raise ValueError("names leave nothing to draw; give names, or images and seed")
        if len(set(self.names)) != len(self.names):
            raise ValueError("an image is named twice; name each once")
        if self.images != len(self.names):
            raise ValueError(f"{len(self.names)} names for {self.images} images; leave images out")
        return self


class SamplingConfig(Settings):
    """Which images of the labelled domain come into a batch."""

    name: Annotated[Literal["uniform", "rare_class"], Choice("uniform", "rare_class")] = Field(
        "uniform",
        description="all equally often, each once in an epoch; or by a class that they contain, rare classes more often",
    )
    ratio: Annotated[float, Range(2.0, 20.0, log=True)] = Field(
        5.0,
        ge=1,
        le=1e6,
        description="how much more often rare_class draws the rarest class than the most frequent one",
    )
    min_share: float = Field(
        0.003,
        ge=0,
        lt=1,
        description="share of an image's labelled pixels that a class must have for rare_class to draw the image for it (DAFormer: "
        "3000 of 1280 x 720)",
    )


class ExternalLabelsData(Settings):
    """Labels of the target's training images that something else has made, see `segda teach`.

    The folder is a place; the digest says what must be there. Without one the configuration takes that of the labels that the
    folder holds when it is read, and keeps to it.
    """

    folder: Path | None = Field(None, description="folder of the labels, which every process that trains can read")
    digest: str = Field(
        "", pattern=r"^[0-9a-f]{64}$", description="identity of the labels; unset: of those that the folder holds now"
    )

    @model_validator(mode="before")
    @classmethod
    def _digest_is_known(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("digest") is not None:
            return given
        folder = given.get("folder")
        if not isinstance(folder, str | Path):
            raise LocatedError(("folder",), f"must be the folder of labels that `segda teach` wrote, got {folder!r}")
        try:
            return {**given, "digest": digest_in(expanded(folder))}
        except SegdaError as error:
            raise LocatedError(("folder",), str(error)) from None


class DataConfig(Settings):
    """Where images come from and what is done to them before the network sees them."""

    source: DomainConfig = Field(description="labelled domain")
    target: DomainConfig = Field(
        description="domain that the network is wanted for; its training labels are never read"
    )
    few_shot: FewShotConfig | None = Field(
        None,
        description="target training images whose labels may be used, by methods that need a few; their results say so",
    )
    external_labels: ExternalLabelsData | None = Field(
        None,
        description="labels of the target training images that something else has made, for methods that learn from such",
    )
    sampling: SamplingConfig = Field(SamplingConfig(), description="which labelled images come into a batch")
    under_represented: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="classes of miou_under, the others are those of miou_well; unset: the half with the fewest pixels in the "
        "source's training labels",
    )
    height: int = Field(ge=32, le=_MOST_PIXELS, description="height in pixels that images are decoded to and scored at")
    width: int = Field(ge=32, le=_MOST_PIXELS, description="width in pixels that images are decoded to and scored at")
    crop_height: int | None = Field(None, ge=32, description="height of training crops; unset: whole images")
    crop_width: int | None = Field(None, ge=32, description="width of training crops; unset: whole images")
    augmentation: Annotated[str, OneOf(RECIPES), Choice(*RECIPES)] = Field(
        "none", description="recipe applied to images and labels of both domains while training"
    )
    style: Annotated[SerializeAsAny[StyleConfig], ConfigOf(STYLES, usual=NO_STYLE)] = Field(
        STYLES[NO_STYLE].Config(name=NO_STYLE),
        description="the look of random unlabelled target training images, given to source training images before the recipe",
    )
    workers: int = Field(0, ge=0, le=256, description="loader processes; 0 reads in a background thread")
    cache: Path | None = Field(None, description="folder of decoded images; unset: the user's cache folder")

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if (self.crop_height is None) != (self.crop_width is None):
            raise ValueError("crop_height and crop_width go together; one of them is missing")
        crop_height, crop_width = self.train_size
        if crop_height > self.height or crop_width > self.width:
            raise ValueError(
                f"crop {crop_height}x{crop_width} is larger than the image {self.height}x{self.width}; "
                "make the crop smaller or height and width larger"
            )
        source, target = DATASETS[self.source.dataset], DATASETS[self.target.dataset]
        if source.classes != target.classes:
            raise ValueError(
                f"source {self.source.dataset} and target {self.target.dataset} have different classes: "
                f"{', '.join(source.classes)} against {', '.join(target.classes)}"
            )
        return self

    @model_validator(mode="after")
    def _under_represented_are_classes(self) -> Self:
        if self.under_represented is None:
            return self
        classes = DATASETS[self.source.dataset].classes
        scored = [name for train_id, name in enumerate(classes) if train_id not in self.unscored]
        for name in self.under_represented:
            if name not in scored:
                raise LocatedError(
                    ("under_represented",),
                    f"{self.source.dataset} has no scored class {name!r}{nearest(name, scored)}; it has: {', '.join(scored)}",
                )
        if len(set(self.under_represented)) != len(self.under_represented):
            raise LocatedError(("under_represented",), "a class is named twice; name each once")
        if len(self.under_represented) == len(scored):
            raise LocatedError(("under_represented",), "holds every class; leave out those that are well represented")
        return self

    @property
    def identities(self) -> tuple[str, str]:
        """What source and target data sets are; a described one is what its description says."""
        return DATASETS[self.source.dataset].identity, DATASETS[self.target.dataset].identity

    @property
    def unscored(self) -> frozenset[int]:
        """Train ids that are left out of the mean IoU: those that source or target leave out."""
        return DATASETS[self.source.dataset].unscored | DATASETS[self.target.dataset].unscored

    @property
    def scorings(self) -> dict[str, frozenset[int]]:
        """Further means that are reported, e.g. `16` for `miou_16`, and the train ids left out of them."""
        found = {**DATASETS[self.source.dataset].scorings, **DATASETS[self.target.dataset].scorings}
        return {name: self.unscored | left_out for name, left_out in found.items()}

    @property
    def train_size(self) -> tuple[int, int]:
        """Height and width in pixels of a training image."""
        return self.crop_height or self.height, self.crop_width or self.width


class DiscriminatorOptimizerConfig(Settings):
    """Adam for the discriminator (AdaptSegNet's settings by default)."""

    lr: Annotated[float, Range(1e-5, 1e-3, log=True)] = Field(1e-4, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)

    @property
    def settings(self) -> AdamConfig:
        """The same as `build_optimizer` takes it."""
        return AdamConfig(lr=self.lr, beta1=self.beta1, beta2=self.beta2)


class ScheduleConfig(Settings):
    """Learning rate over steps: linear warm-up, then (1 - step / horizon) ** power."""

    power: float = Field(0.9, gt=0)
    horizon: int | None = Field(
        None, ge=1, le=_MOST_STEPS, description="step at which the rate would reach zero; unset: `steps`"
    )
    warmup_steps: int = Field(0, ge=0)


class OtherNetworkConfig(Settings):
    """A trained network that a training takes something from.

    The checkpoint is a place; the digest says what must be there. Without one the configuration takes that of the file that is
    there when it is read, and keeps to it.
    """

    checkpoint: Path | None = Field(
        None, description="that `segda train` or `segda slim` wrote, readable for every process that trains"
    )
    digest: str = Field(
        "", pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file; unset: of the one that is there now"
    )

    @model_validator(mode="before")
    @classmethod
    def _digest_is_known(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("digest") is not None:
            return given
        path = given.get("checkpoint")
        if not isinstance(path, str | Path):
            raise LocatedError(
                ("checkpoint",), f"must be the path of a checkpoint that `segda train` wrote, got {path!r}"
            )
        try:
            return {**given, "digest": sha256_of(expanded(path))}
        except OSError as error:
            reason = error.strerror or error
            raise LocatedError(
                ("checkpoint",), f"{path} cannot be read ({reason}); name a checkpoint that `segda train` wrote"
            ) from None


class StartConfig(OtherNetworkConfig):
    """The network that a training starts from, instead of initial weights: a slimmed one is trained on like that."""


class DistillationConfig(OtherNetworkConfig):
    """The network that is learned from beside whatever the method learns (`segda.distillation`)."""

    # Left out where it is what was before there was a choice: those runs keep their fingerprints.
    learned: Annotated[Literal["predictions", "features"], Choice("predictions", "features")] = Field(
        "predictions",
        exclude_if=lambda learned: learned == "predictions",
        description="what of the teacher: predictions, of any network by any; features, of a segformer by sctnet",
    )
    weight: Annotated[float, Range(0.1, 10.0, log=True)] = Field(
        1.0, ge=0, description="of the distance to what the teacher says"
    )
    temperature: Annotated[float, Range(1.0, 8.0, log=True)] = Field(
        2.0,
        gt=0,
        le=1000,
        description="logits (or features, and unset it is 4 then) of teacher and student are divided by it; above 1, more of what "
        "is unlikely is learned",
    )
    images: Annotated[Literal["source", "target", "both"], Choice("source", "target", "both")] = Field(
        "both",
        description="which of a step's images the teacher is asked about: those of the labelled domain (source), the target's",
    )

    @model_validator(mode="before")
    @classmethod
    def _features_have_a_temperature_of_their_own(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("learned") == "features":
            return {"temperature": _FEATURE_TEMPERATURE, **given}
        return given


# Settings of any network, as they stand in a configuration.
AnyModel = Annotated[SerializeAsAny[ModelConfig], ConfigOf(MODELS, usual=USUAL_MODEL)]


class NetworkConfig(Settings):
    """A network alone, without a training."""

    model: AnyModel


class DataAlone(Settings):
    """What images a run uses, whatever else its configuration says, and without external labels."""

    model_config = ConfigDict(extra="ignore")

    data: DataConfig

    @model_validator(mode="before")
    @classmethod
    def _without_external_labels(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and isinstance(given.get("data"), Mapping):
            return {
                **given,
                "data": {name: value for name, value in given["data"].items() if name != "external_labels"},
            }
        return given


class TrainConfig(Settings):
    """One training run."""

    data: DataConfig
    model: AnyModel = MODELS[USUAL_MODEL].Config(name=USUAL_MODEL)
    # What is not there is not among the settings either: other runs keep their fingerprints.
    start: StartConfig | None = Field(
        None,
        exclude_if=lambda start: start is None,
        description="checkpoint to start from; without model, the network is the checkpoint's",
    )
    distillation: DistillationConfig | None = Field(
        None, exclude_if=lambda distillation: distillation is None, description="teacher to learn from, with any method"
    )
    method: Annotated[SerializeAsAny[MethodConfig], ConfigOf(METHODS)]
    loss: Annotated[SerializeAsAny[LossConfig], ConfigOf(LOSSES, usual=USUAL_LOSS)] = LOSSES[USUAL_LOSS].Config(
        name=USUAL_LOSS
    )
    optimizer: Annotated[SerializeAsAny[OptimizerConfig], ConfigOf(OPTIMIZERS, usual=USUAL_OPTIMIZER)] = OPTIMIZERS[
        USUAL_OPTIMIZER
    ].Config(name=USUAL_OPTIMIZER)
    discriminator_optimizer: DiscriminatorOptimizerConfig = DiscriminatorOptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    steps: int = Field(ge=1, le=_MOST_STEPS, description="optimizer updates")
    batch_size: Annotated[int, Choice(4, 8, 16)] = Field(
        4, ge=2, le=4096, description="images of each domain per step; BatchNorm over pooled maps needs two"
    )
    target_batch_norm: Annotated[float, Range(0.05, 1.0)] = Field(
        0.0,
        ge=0,
        le=1,
        description="share of target statistics that BatchNorm's are blended with after training, without labels; 1: AdaBN, 0.731: "
        "UBNA's",
    )
    target_batch_norm_variance: Annotated[Variance, Choice("linear", "mixture")] = Field(
        "linear",
        description="whether the blend's variance lacks (linear, as published) or has (mixture) the part that the distance of the "
        "two means makes; used where target_batch_norm is not 0 or 1",
    )
    target_batch_norm_schedule: Annotated[Schedule, Choice("average", "ubna")] = Field(
        "average",
        description="target statistics are the plain average over all images, or one over 50 batches with UBNA's decaying weights; "
        "used where target_batch_norm is not 0",
    )
    target_batch_norm_layers: Annotated[Literal["all", "trunk"], Choice("all", "trunk")] = Field(
        "all", description="which layers are blended; UBNA: trunk. Used where target_batch_norm is not 0"
    )
    pruning: PruningConfig = Field(
        PruningConfig(),
        description="weights that become zero while the network is trained",
    )
    report_every: int = Field(
        100,
        ge=1,
        le=_MOST_STEPS,
        description="steps between reports: validation on the source, a checkpoint, the scheduler's decision",
    )
    seed: int = Field(0, ge=0, le=MOST_SEEDS)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the device has fast kernels for it, else fp32"
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:<n>")
    oracle: Literal["end", "always", "never"] = Field(
        "end", description="when to score the labelled target split; scores are for reading and steer nothing"
    )
    validators: Annotated[tuple[str, ...], OneOf(VALIDATORS)] = Field(
        USUAL_VALIDATORS,
        description="label-free scores of the predictions on the target at every report: of a few images, at the end of all",
    )

    @model_validator(mode="before")
    @classmethod
    def _network_is_that_of_the_start(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("model") is not None:
            return given
        start = given.get("start")
        path = start.get("checkpoint") if isinstance(start, Mapping) else None
        if not isinstance(path, str | Path):
            return given
        try:
            model = json.loads(read_torch_file(expanded(path))["config"])["model"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise LocatedError(
                ("start", "checkpoint"), f"{path} is no checkpoint that `segda train` wrote ({error})"
            ) from None
        return {**given, "model": model}

    @model_validator(mode="after")
    def _few_shot_fits(self) -> Self:
        uses_labels = METHODS[self.method.name].uses_few_shot(self.method.model_dump())
        if uses_labels and self.data.few_shot is None:
            raise ValueError(
                f"method {self._method_label} trains with a few labelled target images; say which, e.g. "
                "data.few_shot: {images: 5}"
            )
        if self.data.few_shot is not None and not uses_labels:
            raise ValueError(
                f"method {self._method_label} uses no target labels; leave data.few_shot out or choose a few-shot method"
            )
        return self

    @model_validator(mode="after")
    def _classes_of_the_method_are_there(self) -> Self:
        try:
            self.method.check_classes(len(DATASETS[self.data.source.dataset].classes))
        except LocatedError as error:
            raise LocatedError(("method", *error.location), error.text) from error
        return self

    @model_validator(mode="after")
    def _style_fits(self) -> Self:
        if self.data.style.name != NO_STYLE and METHODS[self.method.name].supervision == "target":
            raise LocatedError(
                ("data", "style", "name"),
                f"method {self.method.name} trains on target images, which have the target's look already; set it to {NO_STYLE}",
            )
        return self

    @model_validator(mode="after")
    def _external_labels_fit(self) -> Self:
        uses_labels = METHODS[self.method.name].uses_external_labels(self.method.model_dump())
        if uses_labels and self.data.external_labels is None:
            raise ValueError(
                f"method {self._method_label} learns from labels that something else has made; write some with `segda teach` "
                "and say where they are, e.g. data.external_labels: {folder: labels}"
            )
        if self.data.external_labels is not None and not uses_labels:
            raise ValueError(
                f"method {self._method_label} uses no external labels; leave data.external_labels out or choose a method that does"
            )
        return self

    @model_validator(mode="after")
    def _heads_are_apart(self) -> Self:
        if self.optimizer.head_lr_factor != 1 and MODELS[self.model.name].trunk_module is None:
            raise LocatedError(
                ("optimizer", "head_lr_factor"),
                f"{self.model.name} has no trunk beside which heads would learn at another rate; leave it out, and change lr",
            )
        return self

    @model_validator(mode="after")
    def _blended_trunk_is_there(self) -> Self:
        if self.target_batch_norm_layers == "trunk" and MODELS[self.model.name].trunk_module is None:
            raise LocatedError(
                ("target_batch_norm_layers",),
                f"{self.model.name} has no trunk to blend alone; leave it out, or say all",
            )
        return self

    @model_validator(mode="after")
    def _pruned_discriminator_is_there(self) -> Self:
        if self.pruning.discriminator.is_on and not METHODS[self.method.name].uses_discriminator(
            self.method.model_dump()
        ):
            raise LocatedError(
                ("pruning", "discriminator", "schedule", "name"),
                f"method {self._method_label} trains no discriminator; set it to {NO_PRUNING}, or choose a method with one",
            )
        return self

    @model_validator(mode="after")
    def _features_can_be_learned(self) -> Self:
        learns_features = self.distillation is not None and self.distillation.learned == "features"
        if learns_features and MODELS[self.model.name].feature_alignment is None:
            able = ", ".join(name for name, kind in MODELS.items() if kind.feature_alignment is not None)
            raise LocatedError(
                ("distillation", "learned"),
                f"{self.model.name} cannot learn the features of another network, {able} can; set it to predictions",
            )
        return self

    @model_validator(mode="after")
    def _initial_weights_can_be_there(self) -> Self:
        problem = self.model.weights_problem()
        if problem is not None:
            raise LocatedError(("model", "pretrained"), problem)
        return self

    @model_validator(mode="after")
    def _validators_are_named_once(self) -> Self:
        if len(set(self.validators)) != len(self.validators):
            raise LocatedError(("validators",), "a validator is named twice; name each once")
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        if self.schedule.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps {self.schedule.warmup_steps} must be smaller than steps {self.steps}; train longer or warm up less"
            )
        if self.schedule.horizon is not None and self.schedule.horizon < self.steps:
            raise ValueError(
                f"schedule.horizon {self.schedule.horizon} must not be smaller than steps {self.steps}: the rate would be negative"
            )
        return self

    def canonical(self) -> dict[str, Any]:
        """Return what decides the result, as plain data with sorted keys and no places."""
        return canonical(self.model_dump(mode="json"))

    def fingerprint(self) -> str:
        """Return a hash of `canonical()`: equal for runs that compute the same thing, 16 hexadecimal digits."""
        described = [identity for identity in self.data.identities if identity not in self._dataset_names()]
        # What a description says is not in the configuration that names it.
        content = {**self.canonical(), **({"described": described} if described else {})}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def _method_label(self) -> str:
        """Name of the method, with that of the one that it is put on: which of them needs what, the first alone does not say."""
        host = getattr(self.method, "host", None)
        return f"{self.method.name} on {host.name}" if isinstance(host, MethodConfig) else self.method.name

    def _dataset_names(self) -> set[str]:
        return {DATASETS[domain.dataset].name for domain in (self.data.source, self.data.target)}


def canonical(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `TrainConfig.canonical` does, of a configuration that is plain data already: nothing is checked again.

    Args:
        plain: `TrainConfig.model_dump(mode="json")`.
    """
    return {
        key: canonical(plain[key]) if isinstance(plain[key], Mapping) else plain[key]
        for key in sorted(plain)
        if key not in _PLACE_FIELDS
    }
