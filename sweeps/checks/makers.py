"""The makers of a sweep: out of a file, out of plain data, out of the ledger. What they return has passed every check."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from segda.config_file import read_document, validate
from segda.config_problems import LocatedError, Problem, error_of
from segda.datasets import DATASETS
from segda.errors import ConfigError
from segda.guests import make_importable, make_importable_beside
from segda.tunable import Scalar
from sweeps.checks.sweep import check_spec
from sweeps.file.fields import PATH_FIELDS
from sweeps.file.spec import SweepSpec
from sweeps.ledger.records import SweepRecord
from sweeps.paths import value_at, with_values


def load_spec(path: Path, *, roots: Mapping[str, Path] | None = None) -> SweepSpec:
    """Read a sweep file; what it names by dotted names may lie beside it (see `segda.guests`).

    Args:
        path: YAML file.
        roots: name of a data set -> its folder, put over what the file says.

    Returns:
        The sweep, checked; its paths are absolute, since trials run in other working directories.

    Raises:
        ConfigError: one line: `FILE:LINE: key.path: what was expected, what came`.
    """
    make_importable_beside(path)
    roots = roots or {}
    for name in roots:
        DATASETS[name]  # raises what is wrong with the name
    document = read_document(path)
    base = document.data.get("base")
    if isinstance(base, dict):
        places: dict[str, Scalar] = {}
        for domain in ("source", "target"):
            dataset = value_at(base, f"data.{domain}.dataset")
            if isinstance(dataset, str) and dataset in roots:
                places[f"data.{domain}.root"] = str(roots[dataset])
        for field in PATH_FIELDS:
            place = places.get(field, value_at(base, field))
            if isinstance(place, str):
                places[field] = str(Path(place).expanduser().absolute())
        document.data["base"] = with_values(base, places)
    spec = validate(document, SweepSpec)
    try:
        check_spec(spec)
    except LocatedError as error:
        raise document.error([Problem(error.location, error.text)]) from error
    return spec


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
        spec = SweepSpec.model_validate(data)
        check_spec(spec)
    except ValidationError as error:
        raise error_of(error, SweepSpec, data, where=where) from error
    except LocatedError as error:
        raise ConfigError(f"{where}: {Problem(error.location, error.text)}") from error
    return spec


def stored_spec(record: SweepRecord) -> SweepSpec:
    """Return the sweep file that the ledger has of a sweep; what it names by dotted names is found where its driver found it.

    Args:
        record: the sweep.

    Raises:
        ConfigError: an incompatible version wrote it.
    """
    make_importable(record.info.folders)
    return spec_from(
        record.spec, where=f"sweep {record.name} in the ledger, which another version of this program may have written"
    )
