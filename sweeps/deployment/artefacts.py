"""Artefacts: made of checkpoints, compared with their networks, measured one after the other and judged, each once.

Every step ends with a record (`sweeps.deployment.memory`), so that who was killed goes on with the next one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from segda.checkpoint import load_segmenter
from segda.compression.slimming import write_slimmed
from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.deployment.shipped import Argmax
from segda.efficiency import count_macs, count_parameters
from segda.efficiency.latency import Latency
from segda.environment import code_fingerprint
from segda.errors import ConfigError, CorruptSampleError, DatasetNotFoundError, ExportError, SegdaError, WeightsError
from segda.evaluation import evaluate
from segda.exporting import agreement_with, export
from segda.files import sha256_of
from segda.judging import judge
from segda.loading import with_roots
from segda.models.logits_only import LogitsOnly
from segda.splits import open_split, open_target
from segda.target_prediction import TargetPrediction, read_target_prediction, write_target_prediction
from sweeps.deployment.candidates import Candidate
from sweeps.deployment.measuring import measure
from sweeps.deployment.memory import Memory, key_of
from sweeps.deployment.recipes import ROUND_TO, Recipe, RuntimeName
from sweeps.ledger.records import Device
from sweeps.metrics import SOURCE_MIOU
from sweeps.planning.patience import Patience
from sweeps.suggestions import suggest

# What makes artefacts and what runs them; the fingerprint of the code holds torch, too.
_MAKERS, _RUNNERS = ("onnx", "onnxscript", "onnxruntime"), ("torch", "onnxruntime")


@dataclass(frozen=True)
class Artefact:
    """What is known of a candidate in a recipe.

    Attributes:
        candidate: whose network it is.
        recipe: how it was made.
        refused: why there is none, one line; all that follows is empty then.
        path: the file.
        sha256: of its content.
        file_bytes: its size.
        num_parameters: of the network in it.
        macs: multiply-accumulates for one image.
        parity: share of pixels in which it says what the network that it was made of says, the smallest over the sizes compared.
        agreement: share of pixels in which it says what the trial's network says; of slimmed ones too that is the one of before.
        worst_agreement: of the image where that is smallest.
        compared_images: how many target images, seen without labels, these are of.
        latency: of one image at the size of the training.
        metrics: what a training reports at its end, of this artefact, as far as class maps tell it.
        network_metrics: of a slimmed network before it became a file, what only probabilities tell: the scores of validators.
        prediction: what it says of the pixels by which networks are compared.
        oracle_miou: mean IoU on the target's labelled split: to be read, never to choose by. None: there are no labels.
    """

    candidate: Candidate
    recipe: Recipe
    refused: str | None = None
    path: Path = Path()
    sha256: str = ""
    file_bytes: int = 0
    num_parameters: int = 0
    macs: int = 0
    parity: float = 0.0
    agreement: float = 0.0
    worst_agreement: float = 0.0
    compared_images: int = 0
    latency: Latency | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    network_metrics: Mapping[str, float] = field(default_factory=dict)
    prediction: TargetPrediction | None = None
    oracle_miou: float | None = None

    def __str__(self) -> str:
        return f"trial {self.candidate.trial.number} {self.recipe}"

    def figures(self) -> dict[str, float]:
        """Return what budgets are about: name in `sweeps.deployment.budgets.FIGURES` -> value; nothing of what was refused."""
        if self.latency is None:
            return {}
        return {
            "latency_ms": self.latency.median_ms,
            "latency_p90_ms": self.latency.p90_ms,
            "latency_p95_ms": self.latency.p95_ms,
            "fps": self.latency.fps,
            "file_mb": self.file_bytes / 1e6,
            "num_parameters": float(self.num_parameters),
            "macs": float(self.macs),
            "agreement": self.agreement,
            SOURCE_MIOU: self.metrics[SOURCE_MIOU],
        }


@dataclass(frozen=True)
class Source:
    """A trial's checkpoint.

    Attributes:
        path: the file.
        config: what it was trained with, with the folders of this machine's data.
        origin: what everything that is made of it follows from, plain data.
    """

    path: Path
    config: TrainConfig
    origin: Mapping[str, Any]

    @classmethod
    def at(cls, path: Path, *, data_roots: Mapping[str, Path | str]) -> "Source":
        """Open a checkpoint.

        Args:
            path: the file that a training left.
            data_roots: name of a data set -> its folder.

        Raises:
            WeightsError: it cannot be read.
            SegdaError: its data cannot be used.
        """
        try:
            digest = sha256_of(path)
        except OSError as error:
            raise WeightsError(
                f"{path} cannot be read ({error.strerror or error}); {suggest('audit', 'NAME')} says what a sweep has lost"
            ) from None
        config = with_roots(load_segmenter(path)[1], data_roots)
        images = [
            open_split(config, config.data.source, "val", with_labels=True).fingerprint,
            open_target(config.data).fingerprint,
        ]
        return cls(path, config, {"checkpoint": digest, "code": code_fingerprint(config), "images": images})

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of the images that it was trained for."""
        return self.config.data.height, self.config.data.width


class Workshop:
    """Makes artefacts of a sweep, and remembers what it made."""

    def __init__(
        self,
        folder: Path,
        *,
        device: Device,
        runtime: RuntimeName,
        argmax: Argmax,
        validators: Sequence[str],
        needs_oracle: bool,
        data_roots: Mapping[str, Path | str],
        patience: Patience,
        again: bool,
        say: Callable[[str], None],
    ) -> None:
        """Open it; nothing is made yet.

        Args:
            folder: of the deployment.
            device: what artefacts are measured on; PyTorch has as many threads as it says.
            runtime: what runs them.
            argmax: where they decide classes, see `segda.deployment.ShippedNetwork`.
            validators: those that choose, to be computed of slimmed networks.
            needs_oracle: whether target labels choose, so that it is an error if there are none.
            data_roots: name of a data set -> its folder.
            patience: how long to wait for an idle device.
            again: whether to measure again what was measured in company.
            say: is told what goes on, one line each.
        """
        self._folder = folder
        self._memory = Memory(folder / "records", say=say)
        self._device = device
        self._runtime = runtime
        self._argmax = argmax
        self._validators = tuple(validators)
        self._needs_oracle = needs_oracle
        self._data_roots = data_roots
        self._patience = patience
        self._again = again
        self._say = say
        self._has_labels = True

    def artefact(self, candidate: Candidate, recipe: Recipe, source: Source) -> Artefact:
        """Return the artefact of a candidate in a recipe; what is not known yet is made, measured and judged.

        Args:
            candidate: whose checkpoint it is.
            recipe: how to make it.
            source: the checkpoint.

        Raises:
            SegdaError: data or device cannot be used.
        """
        number = candidate.trial.number
        network = source.path
        if recipe.ratio is not None:
            slim = f"{number:04d}-slim{100 * recipe.ratio:g}"
            network, refused = self._slimmed(slim, recipe.ratio, source)
            if refused is not None:
                return Artefact(candidate, recipe, refused=refused)
        label = f"{number:04d}-{recipe}"
        # A compiler translates for one size; all other artefacts take any number of images of any size.
        size, batch = (source.size, 1) if self._runtime == "torch_compile" else (None, None)
        suffix = ".onnx" if self._runtime == "onnxruntime" else ".pt2"
        # What int8 changes is judged afterwards, like what fewer channels change; other files must say what the network says.
        bar = 0.0 if recipe.precision == "int8" else None
        origin = {
            **source.origin,
            "recipe": {**asdict(recipe), "round_to": ROUND_TO, "argmax": self._argmax, "bar": bar},
            "file": {"suffix": suffix, "size": size, "batch": batch},
            "versions": _versions(_MAKERS),
        }
        path = self._folder / "artefacts" / f"{label}-{key_of(origin)[:8]}{suffix}"

        def make() -> Mapping[str, Any]:
            self._say(f"trial {number} {recipe}: is made and compared with its network")
            try:
                done = export(
                    network,
                    path,
                    precision=recipe.precision,
                    size=size,
                    batch=batch,
                    argmax=self._argmax,
                    agreement=bar,
                    data_roots=self._data_roots,
                    overwrite=True,
                )
            except ExportError as error:
                path.unlink(missing_ok=True)
                return {"refused": _refusal(error)}
            found = agreement_with(path, source.path, data_roots=self._data_roots)
            view = LogitsOnly(load_segmenter(network)[0])
            return {
                "sha256": sha256_of(path),
                "file_bytes": done.file_bytes,
                "num_parameters": count_parameters(view),
                "macs": count_macs(view, input_shape=(1, 3, *source.size)),
                "parity": min(item.mean for item in done.agreements),
                "agreement": found.mean,
                "worst_agreement": found.worst,
                "compared_images": found.images,
            }

        made = self._memory.recall(f"{label}-made", origin, make, file=path)
        if "refused" in made:
            return Artefact(candidate, recipe, refused=made["refused"])
        latency = self._latency(label, path, made["sha256"], source)
        metrics, prediction = self._judged(label, path, made["sha256"], source)
        return Artefact(
            candidate,
            recipe,
            path=path,
            **made,
            latency=latency,
            metrics=metrics,
            network_metrics={} if recipe.ratio is None else self._validated(slim, network, recipe.ratio, source),
            prediction=prediction,
            oracle_miou=self._oracle(label, path, made["sha256"], source),
        )

    def _slimmed(self, label: str, ratio: float, source: Source) -> tuple[Path, str | None]:
        """Return the checkpoint of the smaller network, and why there is none if so."""
        origin = {**source.origin, "ratio": ratio, "round_to": ROUND_TO}
        path = self._folder / "slimmed" / f"{label}-{key_of(origin)[:8]}.pt"

        def make() -> Mapping[str, Any]:
            self._say(f"{label}: {100 * ratio:g} % of the channels are taken out, statistics are renewed")
            try:
                write_slimmed(
                    source.path,
                    path,
                    ratio=ratio,
                    round_to=ROUND_TO,
                    data_roots=self._data_roots,
                    device=self._device.kind,
                    precision=source.config.precision,
                )
            except ConfigError as error:
                return {"refused": _refusal(error)}
            return {"refused": None}

        path.parent.mkdir(parents=True, exist_ok=True)
        return path, self._memory.recall(f"{label}-made", origin, make, file=path)["refused"]

    def _latency(self, label: str, path: Path, sha256: str, source: Source) -> Latency:
        origin = {
            "file": sha256,
            "runtime": self._runtime,
            "size": list(source.size),
            "device": asdict(self._device),
            "versions": running_versions(),
        }

        def make() -> Mapping[str, Any]:
            self._say(f"{label}: is measured")
            return asdict(
                measure(path, self._runtime, size=source.size, device=self._device, patience=self._patience, what=label)
            )

        found = self._memory.recall(
            f"{label}-latency", origin, make, is_stale=lambda known: self._again and bool(known["doubts"])
        )
        return Latency(**{**found, "doubts": tuple(found["doubts"]), "unchecked": tuple(found["unchecked"])})

    def _judged(
        self, label: str, path: Path, sha256: str, source: Source
    ) -> tuple[Mapping[str, float], TargetPrediction]:
        origin = {**source.origin, "file": sha256, "versions": running_versions()}
        kept = self._folder / "predictions" / f"{label}-{key_of(origin)[:8]}.npz"

        def make() -> Mapping[str, Any]:
            self._say(f"{label}: is judged")
            found = judge(path, source.config, device=self._device.kind)
            write_target_prediction(kept, found.prediction)
            return dict(found.metrics)

        metrics = self._memory.recall(f"{label}-judged", origin, make, file=kept)
        return metrics, read_target_prediction(kept)

    def _validated(self, label: str, network: Path, ratio: float, source: Source) -> Mapping[str, float]:
        """Return the scores of a slimmed network that only probabilities tell, once for all files of it."""
        if not self._validators:
            return {}

        def make() -> Mapping[str, Any]:
            found = judge(
                network,
                source.config.model_copy(update={"model": load_segmenter(network)[1].model}),
                validators=self._validators,
                device=self._device.kind,
                precision=source.config.precision,
            )
            return dict(found.metrics)

        origin = {**source.origin, "ratio": ratio, "round_to": ROUND_TO, "validators": list(self._validators)}
        return self._memory.recall(f"{label}-validated", origin, make)

    def _oracle(self, label: str, path: Path, sha256: str, source: Source) -> float | None:
        """Return the mean IoU on target labels, where there are any and the training was allowed to read them."""
        data = source.config.data
        split = DATASETS[data.target.dataset].report_split
        if not self._has_labels or source.config.oracle == "never":
            return None
        try:
            labels = open_split(source.config, data.target, split, with_labels=True).fingerprint
            origin = {**source.origin, "file": sha256, "labels": labels, "versions": running_versions()}

            def make() -> Mapping[str, Any]:
                name = f"target/{split}"
                return {"miou": evaluate(path, source.config, splits=[name], device=self._device.kind)[name].miou}

            return float(self._memory.recall(f"{label}-oracle", origin, make)["miou"])
        except (ConfigError, CorruptSampleError, DatasetNotFoundError) as error:
            if self._needs_oracle:
                raise
            self._has_labels = False
            self._say(f"no score on the target is shown, which changes no choice: {' '.join(str(error).split())}")
            return None


def _refusal(error: SegdaError) -> str:
    """Return why a network cannot be made into something, to be remembered; a disk that is full says nothing about it."""
    if isinstance(error.__cause__, OSError):
        raise error
    return " ".join(str(error).split()).removesuffix("; nothing was written")


def running_versions() -> dict[str, str]:
    """Return package -> version of what runs artefacts."""
    return _versions(_RUNNERS)


def _versions(packages: Sequence[str]) -> dict[str, str]:
    return {name: metadata.version(name) for name in packages}
