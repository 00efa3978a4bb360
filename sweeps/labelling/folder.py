"""The folder of a pick by labels: what was asked, what came, and what was counted of it.

`labels.json` says which finalists are compared and which images were asked for; it is written last, so that all that belongs to an
image it names is there: its draft, and what each finalist predicts for it. What was counted of a label lies in a file of its own
with a digest of its bytes. Files appear complete, and whatever a kill leaves out the next call does again.
"""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segda.errors import ConfigError
from segda.files import replacing, write_json, write_text
from segda.types import IGNORE_INDEX, Pixels
from sweeps.selection.confusions import Shares
from sweeps.selection.few_labels import Counts

STATE, README, IMAGES = "labels.json", "README.md", "images.csv"
ANSWERS, DRAFTS = "answers", "drafts"
_DISAGREEMENT, _PREDICTIONS, _COUNTED = "disagreement.npz", "predictions", "counted"
_VERSION = 1
RANDOM, DISPUTED = "random", "disputed"  # parts of the images


@dataclass(frozen=True)
class Finalist:
    """A trial among which is chosen.

    Attributes:
        trial: its number.
        key: its key.
        checkpoint: SHA-256 of its network's file.
        figure: what ranks it without labels.
    """

    trial: int
    key: str
    checkpoint: str
    figure: float


@dataclass(frozen=True)
class AskedImage:
    """An image for which a label was asked.

    Attributes:
        name: of the sample.
        path: its file where it was found.
        part: `random` or `disputed`.
        height: of the file in pixels.
        width: of the file in pixels.
    """

    name: str
    path: str
    part: str
    height: int
    width: int


@dataclass(frozen=True)
class State:
    """What was asked.

    Attributes:
        labels: how many labels there shall be in all.
        criterion: what ranked the finalists without labels.
        finalists: best first by that.
        target: data set, domain and split of the images.
        classes: name of each train id.
        unscored: train ids that are left out of the mean IoU.
        size: height and width at which predictions and labels are compared.
        images: in the order in which they were asked for.
    """

    labels: int
    criterion: str
    finalists: tuple[Finalist, ...]
    target: tuple[str, str, str]
    classes: tuple[str, ...]
    unscored: tuple[int, ...]
    size: tuple[int, int]
    images: tuple[AskedImage, ...] = ()

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Return what `asdict` has made plain."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        values["finalists"] = tuple(Finalist(**item) for item in plain["finalists"])
        values["images"] = tuple(AskedImage(**item) for item in plain["images"])
        return cls(**values)

    def asking(self, images: Sequence[AskedImage]) -> "State":
        """Return the state with more images."""
        return replace(self, images=(*self.images, *images))


class LabelFolder:
    """What lies in the folder of a pick by labels.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        """Have a folder; nothing is made."""
        self.path = path

    def state(self) -> State | None:
        """Return what was asked; None before the first call.

        Raises:
            ConfigError: the file is damaged, or of another version.
        """
        path = self.path / STATE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["version"] != _VERSION:
                raise ValueError(f"version {content['version']}")
            return State.from_plain(content["state"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{path} is not as it was written ({type(error).__name__}); move {self.path} away and begin again with its answers "
                "in --labels-from"
            ) from error

    def keep_state(self, state: State) -> None:
        """Write what was asked."""
        write_json(self.path / STATE, {"version": _VERSION, "state": asdict(state)})

    def answer(self, name: str) -> Path:
        """Return where the label of an image is expected."""
        return self.path / ANSWERS / f"{name}.png"

    def draft(self, name: str) -> Path:
        """Return where the draft of an image's label lies."""
        return self.path / DRAFTS / f"{name}.png"

    def check_answers(self, state: State) -> None:
        """Refuse a label of no image that was asked for: its name is most likely misspelt.

        Raises:
            ConfigError: names the first such file.
        """
        expected = {self.answer(image.name) for image in state.images}
        for path in sorted((self.path / ANSWERS).rglob("*.png")):
            if path not in expected and not path.name.startswith("."):
                raise ConfigError(
                    f"{path} is the label of no image that was asked for; expected a name in the column answer of "
                    f"{self.path / IMAGES}; rename it, or take it away"
                )

    # Predictions

    def keep_disagreement(self, names: Sequence[str], shares: Shares, *, of: str) -> None:
        """Keep how much finalists differ on images, [images, finalists, finalists], and of which finalists and images that is."""
        with replacing(self.path / _DISAGREEMENT, durable=True) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, names=np.array(names, dtype=np.str_), shares=shares, of=np.str_(of))

    def disagreement(self, *, of: str) -> tuple[list[str], Shares] | None:
        """Return what was kept; None if there is nothing of these finalists and images."""
        try:
            with np.load(self.path / _DISAGREEMENT, allow_pickle=False) as content:
                return (content["names"].tolist(), content["shares"]) if str(content["of"]) == of else None
        except (OSError, ValueError, KeyError, EOFError):
            return None

    def keep_predictions(self, name: str, maps: Pixels) -> None:
        """Keep what each finalist predicts for an image, uint8 [finalists, H, W]."""
        path = self.path / _PREDICTIONS / f"{name}.npz"
        with replacing(path, durable=True) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, maps=maps)

    def predictions(self, name: str) -> Pixels | None:
        """Return what each finalist predicts for an image; None if that is lost."""
        try:
            with np.load(self.path / _PREDICTIONS / f"{name}.npz", allow_pickle=False) as content:
                found: Pixels = content["maps"]
                return found
        except (OSError, ValueError, KeyError, EOFError):
            return None

    # Labels

    def keep_counted(self, name: str, confusions: Counts, *, label: str) -> None:
        """Keep what was counted of a label: pixel counts [finalists, C, C], and the SHA-256 of the label's file."""
        content = {"label": label, "confusions": confusions.tolist()}
        write_json(self.path / _COUNTED / f"{name}.json", {**content, "seal": _digest(content)})

    def counted(self, name: str) -> tuple[str, Counts] | None:
        """Return the SHA-256 of an image's label and what was counted of it; None if none has come, or the file is damaged."""
        try:
            content = json.loads((self.path / _COUNTED / f"{name}.json").read_text(encoding="utf-8"))
            seal = content.pop("seal")
        except (OSError, ValueError, LookupError, AttributeError):
            return None
        if seal != _digest(content):
            return None
        return content["label"], np.array(content["confusions"], dtype=np.int64)

    # For people

    def tell(self, state: State, *, sweep: str, command: str) -> None:
        """Write which images wait for which labels, and how to make them.

        Args:
            state: what was asked.
            sweep: its name.
            command: that takes labels.
        """
        (self.path / ANSWERS).mkdir(parents=True, exist_ok=True)
        write_text(self.path / README, _readme(state, sweep=sweep, command=command))
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("image", "part", "height", "width", "answer", "draft"))
        for image in state.images:
            places = (path.relative_to(self.path) for path in (self.answer(image.name), self.draft(image.name)))
            rows.writerow((image.path, image.part, image.height, image.width, *places))
        write_text(self.path / IMAGES, text.getvalue())


def compared_trials(folder: Path) -> tuple[int, ...]:
    """Return the trials among which the labels in a folder choose; none without such a folder."""
    state = LabelFolder(folder).state()
    return () if state is None else tuple(item.trial for item in state.finalists)


def _readme(state: State, *, sweep: str, command: str) -> str:
    ids = "\n".join(f"| {train_id} | {name} |" for train_id, name in enumerate(state.classes))
    return f"""# Labels that choose the network of sweep {sweep}

`{IMAGES}` has the images to label. Put the label of each where its column `answer` says, then type `{command}`.

A label is a PNG of one channel, gray or indexed, of the size of its image. Its values are train ids:

| id | class |
| ---: | --- |
{ids}
| {IGNORE_INDEX} | void: not to be judged |

`{DRAFTS}/` has what most finalists say of each image, with these ids, to be corrected rather than drawn. A draft is no label: only
what lies in `{ANSWERS}/` counts. A draft that is put there without a look favors the finalists that are most like the others.
"""


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def confusions_of(label: Pixels, maps: Pixels, num_classes: int) -> NDArray[np.int64]:
    """Return the pixel counts of each network on an image, int64 [networks, C, C], rows are labels; void is left out.

    Args:
        label: train ids, uint8 [H, W].
        maps: what each network predicts, uint8 [networks, H, W].
        num_classes: C.
    """
    known = label != IGNORE_INDEX
    pairs = num_classes * label[known].astype(np.int64) + maps[:, known]
    counts = [np.bincount(row, minlength=num_classes**2).reshape(num_classes, num_classes) for row in pairs]
    return np.stack(counts).astype(np.int64)
