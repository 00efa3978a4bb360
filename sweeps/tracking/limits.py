"""What MLflow takes: lengths and characters of names and values, and what becomes of a row that it refuses for good.

Whatever is shortened here is whole in the ledger and in the trials' files.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from segda.masking import reason

log = logging.getLogger(__name__)

# PostgreSQL's columns; MLflow itself allows more in places, or cuts without a mark.
LONGEST_NAME = 250  # of runs, metrics, parameters and tags
LONGEST_PARAM = 6000
LONGEST_TAG = 8000
LONGEST_DATASET = 500
_MARK = "…"
_HASH_DIGITS = 8
# What sending again would not change. Of a run that was deleted meanwhile MLflow says the same, so that is looked at.
_FOR_GOOD = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", "RESOURCE_ALREADY_EXISTS"})


def cut(text: str, limit: int) -> str:
    """Return a text for people within a limit of characters, with a mark where something is missing.

    Example:
        >>> cut("a long story", 6), cut("short", 6)
        ('a lon…', 'short')
    """
    # No database keeps half a surrogate, and PostgreSQL no NUL.
    clean = text.replace("\0", "").encode("utf-8", "replace").decode()
    return clean if len(clean) <= limit else clean[: limit - len(_MARK)] + _MARK


def key_name(name: str) -> str:
    """Return the name of a metric, a parameter or a tag as MLflow takes it.

    It allows fewer characters than data sets use in names of classes, and no parts that a path would swallow. A name that is too
    long ends with a hash of the whole, so that two of them stay two.

    Example:
        >>> key_name("source/val/iou/Road (wet)"), key_name("iou/..")
        ('source/val/iou/Road _wet_', 'iou/_')
    """
    parts = re.sub(r"[^\w\-. :/]", "_", name).split("/")
    allowed = "/".join("_" if part in ("", ".", "..") else part for part in parts)
    if len(allowed) <= LONGEST_NAME:
        return allowed
    return f"{allowed[: LONGEST_NAME - _HASH_DIGITS - 1]}-{hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]}"


def limited_params(params: Mapping[str, str]) -> dict[str, str]:
    """Return parameters as MLflow takes them."""
    return {key_name(name): cut(value, LONGEST_PARAM) for name, value in params.items()}


def limited_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return a run's tags as MLflow takes them."""
    return {key_name(name): cut(value, LONGEST_TAG) for name, value in tags.items()}


class Refusals:
    """What MLflow refused for good: said once, left out, and no reason to keep the rest from it.

    Attributes:
        reasons: what was refused -> what MLflow said.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        """Know of none yet.

        Args:
            quiet: whether nothing is said, because it is tried again in parts.
        """
        self.reasons: dict[str, str] = {}
        self._quiet = quiet

    @contextmanager
    def skipping(self, client: MlflowClient, what: str, *, run_id: str) -> Iterator[None]:
        """Go on behind a block that MLflow refuses for good.

        Args:
            client: MLflow.
            what: what the block sends, for people.
            run_id: the run that it belongs to.

        Raises:
            MlflowException: it may succeed later, or the run is not there any more and must be made anew.
        """
        try:
            yield
        except MlflowException as error:
            if error.error_code not in _FOR_GOOD or client.get_run(run_id).info.lifecycle_stage != "active":
                raise
            if what not in self.reasons and not self._quiet:
                log.warning("MLflow refuses %s: %s; the ledger has it, and the rest is sent", what, reason(error))
            self.reasons[what] = reason(error)
