"""Predictions as an evaluation server takes them.

LoveDA's test labels are kept by its owners: their server (Codabench, before that CodaLab) scores a zip. What it takes is known
from their answers in issues 6 and 32 of github.com/Junjue-Wang/LoveDA and from the writer that MMSegmentation has for it: the
PNGs lie in the zip itself and in no folder, are named as the images, have their 1024 x 1024 pixels and hold the class indices
0..6, background first; so one less than the published labels.
"""

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segda.datasets import DATASETS
from segda.datasets.listing import TIFF_SUFFIXES, find_images, list_folder
from segda.device import Precision
from segda.errors import ConfigError, CorruptSampleError, DatasetNotFoundError
from segda.file_prediction import predict_files
from segda.files import expanded, replacing, sha256_of
from segda.prediction import SeenSize
from segda.trained import make_ready

_SUFFIX = ".zip"
_IMAGES = "images_png"
_BEGINNING = (1980, 1, 1, 0, 0, 0)  # the same predictions make the same zip


@dataclass(frozen=True)
class Submission:
    """A zip for a server.

    Attributes:
        path: the zip.
        predictions: where the predictions lie that it was made of; they may be deleted.
        count: images in it.
    """

    path: Path
    predictions: Path
    count: int


def predict_submission(
    checkpoints: Sequence[Path | str],
    source: Path | str,
    destination: Path | str,
    *,
    size: SeenSize | None = None,
    overwrite: bool = False,
    device: str = "auto",
    precision: Precision = "auto",
) -> Submission:
    """Predict LoveDA's test images and write the zip for its server; an interrupted run goes on where it stopped.

    Args:
        checkpoints: of a network with LoveDA's classes, or of several, of whose probabilities the mean counts.
        source: folder of images; or the data set or its folder Test, which stand for both `Urban` and `Rural`.
        destination: the zip. Beside it a folder of the predictions is left, whose name says of which checkpoints they are.
        size: what the network sees of an image, as `segda.predict` says.
        overwrite: whether to replace a zip that exists.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        precision: arithmetic of convolutions.

    Raises:
        ConfigError: the network has other classes, or the zip exists or is called otherwise.
        DatasetNotFoundError: there are no images.
        CorruptSampleError: an image cannot be read, or the zip is not what it must be.
    """
    source, destination = expanded(source), expanded(destination)
    paths = [expanded(path) for path in checkpoints]
    if destination.suffix.lower() != _SUFFIX:
        raise ConfigError(f"a submission is a zip: the output must end in {_SUFFIX}, got {destination}")
    if destination.exists() and not overwrite:
        raise ConfigError(f"{destination} exists; choose another name, or ask for it to be replaced (overwrite)")
    folders = _folders_of(source)
    images = _images_in(folders)
    _check_classes(paths)
    work = destination.with_name(f"{destination.stem}-{_digest(paths, folders, size)}")
    for number, folder in enumerate(folders):
        predict_files(paths, folder, work / str(number), size=size, device=device, precision=precision)
    predicted = {
        name: work / str(number) / f"{name}.png"
        for number, folder in enumerate(folders)
        for name in find_images(folder)
    }
    with replacing(destination, durable=True) as partial:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:  # PNGs do not become smaller
            for name, path in predicted.items():
                archive.writestr(zipfile.ZipInfo(f"{name}.png", _BEGINNING), _as_gray(path))
        verify_submission(partial, images)
    return Submission(destination, work, len(images))


def verify_submission(path: Path, images: Mapping[str, Path]) -> None:
    """Read a zip as the server does, and compare it with the images.

    Args:
        path: the zip.
        images: name -> image.

    Raises:
        CorruptSampleError: an entry is missing, is one too many, lies in a folder, or is no map of classes of its image's size.
    """
    num_classes = len(DATASETS["loveda"].classes)
    with zipfile.ZipFile(path) as archive:
        if sorted(archive.namelist()) != sorted(f"{name}.png" for name in images):
            raise CorruptSampleError(
                f"{path} must hold one PNG for each of {len(images)} images, in no folder, and holds others"
            )
        for name, image in images.items():
            with Image.open(io.BytesIO(archive.read(f"{name}.png"))) as entry, Image.open(image) as original:
                if entry.mode != "L":
                    raise CorruptSampleError(f"{path}: {name}.png must be gray with 8 bits, is {entry.mode}")
                if entry.size != original.size:
                    raise CorruptSampleError(
                        f"{path}: {name}.png must have the {original.size} pixels of {image}, has {entry.size}"
                    )
                largest = int(np.asarray(entry).max())
            if largest >= num_classes:
                raise CorruptSampleError(f"{path}: {name}.png must hold classes 0..{num_classes - 1}, holds {largest}")


def _folders_of(source: Path) -> list[Path]:
    if not source.is_dir():
        raise DatasetNotFoundError(f"{source}: a submission is made of a folder of images, and this is none")
    if list_folder(source).images:
        return [source]
    found = [sorted(place.glob(f"*/{_IMAGES}")) for place in (source, source / "Test")]
    folders = next((folders for folders in found if folders), [])
    if not folders:
        raise DatasetNotFoundError(
            f"{source} holds no images; expected some, or the folders Urban/{_IMAGES} and Rural/{_IMAGES}"
        )
    return folders


def _images_in(folders: Sequence[Path]) -> dict[str, Path]:
    images: dict[str, Path] = {}
    for folder in folders:
        for name, path in find_images(folder).items():
            if name in images:
                raise CorruptSampleError(
                    f"{images[name]} and {path} have one name, and a submission has no folders; give one folder"
                )
            if path.suffix.lower() in TIFF_SUFFIXES:
                raise CorruptSampleError(f"{path}: a submission is made of the published PNG images")
            images[name] = path
    return images


def _check_classes(paths: Sequence[Path]) -> None:
    network = make_ready(list(paths), None, device="cpu", precision="fp32")
    has, wanted = DATASETS[network.config.data.source.dataset].classes, DATASETS["loveda"].classes
    if has != wanted:
        raise ConfigError(
            f"LoveDA's server knows the classes {', '.join(wanted)}; {paths[0]} was trained for {', '.join(has)}"
        )


def _digest(paths: Sequence[Path], folders: Sequence[Path], size: SeenSize | None) -> str:
    """Return what tells predictions by other checkpoints, of other images or at another size from these: 8 hexadecimal digits."""
    text = " ".join([*map(sha256_of, paths), *(str(folder.absolute()) for folder in folders), str(size)])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _as_gray(path: Path) -> bytes:
    """Return a prediction as a gray PNG: of a table many readers take the colors."""
    with Image.open(path) as indexed:
        classes = np.asarray(indexed)
    content = io.BytesIO()
    Image.fromarray(classes).save(content, format="PNG")
    return content.getvalue()
