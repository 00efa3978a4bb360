"""Sweep files that come as plain data and not as a file: out of the ledger, or changed by the command line."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from segda.config_problems import error_of
from segda.guests import make_importable
from sweeps.ledger.records import SweepRecord
from sweeps.spec import SweepSpec


def spec_from(plain: Mapping[str, Any], *, where: str) -> SweepSpec:
    """Return a sweep from plain data.

    Args:
        plain: what `SweepSpec.canonical` gives.
        where: what the data are, put before the message.

    Raises:
        ConfigError: they describe no sweep; one line.
    """
    data = dict(plain)
    try:
        return SweepSpec.model_validate(data)
    except ValidationError as error:
        raise error_of(error, SweepSpec, data, where=where) from error


def stored_spec(record: SweepRecord) -> SweepSpec:
    """Return the sweep file that the ledger has of a sweep; what it names by dotted names is found where its driver found it.

    Args:
        record: the sweep.

    Raises:
        ConfigError: an incompatible version wrote it.
    """
    make_importable(record.info.get("folders", ()))
    return spec_from(
        record.spec, where=f"sweep {record.name} in the ledger, which another version of this program may have written"
    )
