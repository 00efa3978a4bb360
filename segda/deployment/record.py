"""What an artefact says of itself: enough to use it without the checkpoint, and to know where it comes from."""

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from segda.deployment.program import Accepts
from segda.deployment.shipped import Argmax

_WORDS = frozenset({"network", "source", "target", "argmax", "precision", "calibrated_on", "checkpoint"})


class ArtefactRecord(BaseModel):
    """The metadata of a file; in ONNX each is an entry of `metadata_props`, text as it is and all else as JSON.

    Attributes:
        format: version of this record.
        network: the architecture for people.
        classes: name of each train id.
        source: labelled domain that it was trained on, e.g. `camvid/day`.
        target: domain that it was trained for.
        data_terms: data set -> terms of its use, which may bind what was trained on it.
        trained_size: height and width in pixels of the images that it was trained at.
        batch: how many images it takes at once; None: any number.
        size: their height and width in pixels; None: any.
        argmax: where classes are decided, see `ShippedNetwork`.
        precision: arithmetic of convolutions.
        calibrated_on: images that told the ranges of int8; empty: none did.
        checkpoint: SHA-256 of the checkpoint that it was made of.
        config: the training configuration as plain data, without places.
        versions: package -> version that it was made with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    network: str
    classes: tuple[str, ...]
    source: str
    target: str
    data_terms: dict[str, str]
    trained_size: tuple[int, int]
    batch: int | None
    size: tuple[int, int] | None
    argmax: Argmax
    precision: Literal["fp32", "fp16", "int8"]
    calibrated_on: str
    checkpoint: str
    config: dict[str, Any]
    versions: dict[str, str]

    @property
    def accepts(self) -> Accepts:
        """Which images it takes."""
        return Accepts(self.batch, self.size)

    def texts(self) -> dict[str, str]:
        """Return it as texts by name, for a file that carries such."""
        plain = self.model_dump(mode="json")
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in plain.items()}

    @classmethod
    def of_texts(cls, texts: Mapping[str, str]) -> "ArtefactRecord":
        """Read what `texts` returned.

        Args:
            texts: of a file; others than those of a record are left alone.

        Raises:
            ValueError: they are no record of this version.
        """
        try:
            plain = {
                name: text if name in _WORDS else json.loads(text)
                for name, text in texts.items()
                if name in cls.model_fields
            }
            return cls.model_validate(plain)
        except (ValueError, ValidationError) as error:
            raise ValueError("it was not written by `segda export`, or by another version of it") from error
