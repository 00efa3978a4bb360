"""The makers of a sweep: out of a file, out of plain data, out of the ledger. What they return has passed every check."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from segda.config_file import configuration_path, read_document, validate
from segda.config_problems import LocatedError, Problem, validated
from segda.datasets import DATASETS
from segda.datasets.external_labels import digest_in
from segda.errors import ConfigError, SegdaError
from segda.files import expanded, sha256_of
from segda.guests import make_importable, make_importable_beside
from segda.loading import put_changes
from segda.plain_data import plain_copy
from segda.tunable import Scalar
from sweeps.checks.sweep import check_spec
from sweeps.file.fields import CHECKPOINTS, EXTERNAL_DIGEST, EXTERNAL_FOLDER, PATH_FIELDS
from sweeps.file.spec import SweepSpec
from sweeps.ledger.records import SweepRecord
from sweeps.paths import value_at, with_values

CONFIGS = Path(__file__).parents[1] / "configs"  # that come with this package, and are found by name


def load_spec(
    source: Path | str | Mapping[str, Any],
    *,
    changes: Mapping[str, Any] | None = None,
    data_roots: Mapping[str, Path | str] | None = None,
) -> SweepSpec:
    """Read a sweep; what it names by dotted names may lie beside its file, or in the working folder (see `segda.guests`).

    Args:
        source: YAML file, the name of one that comes with this package (`demo`), or the same as plain data.
        changes: dotted key -> value, put over what the source says in their order, e.g. `base.steps` or `search.optimizer.lr`; they
            may add what it lacks.
        data_roots: name of a data set -> its folder, put over what the sweep says.

    Returns:
        The sweep, checked; its paths are absolute, since trials run in other working directories.

    Raises:
        ConfigError: one line: `FILE:LINE: key.path: what was expected, what came`; for plain data `sweep: key.path: ...`.
    """
    # First of all: a folder may be given for a data set that lies beside the file.
    if isinstance(source, Mapping):
        make_importable([Path.cwd()])
    else:
        source = configuration_path(source, shipped=CONFIGS)
        make_importable_beside(source)
    for name in data_roots or {}:
        DATASETS[name]  # raises what is wrong with the name
    if isinstance(source, Mapping):
        return _changed(plain_copy(source, where="sweep"), changes or {}, data_roots or {}, where="sweep")
    document = read_document(source)
    if changes:
        return _changed(document.data, changes, data_roots or {}, where=str(source))
    document.data.update(_with_places(document.data, data_roots or {}))
    spec = validate(document, SweepSpec)
    try:
        check_spec(spec)
    except LocatedError as error:
        raise document.error([Problem(error.location, error.text)]) from error
    return spec


def _changed(
    plain: dict[str, Any], changes: Mapping[str, Any], data_roots: Mapping[str, Path | str], *, where: str
) -> SweepSpec:
    where = put_changes(plain, changes, where=where, steps=_steps)
    return spec_from(_with_places(plain, data_roots), where=where)


def _steps(key: str) -> list[str]:
    """Take a key of a sweep file apart: the keys of `search` and of a reference are themselves dotted paths."""
    dotted = {"search": 1, "references": 2}
    return key.split(".", dotted.get(key.partition(".")[0], -1))


def _with_places(plain: Mapping[str, Any], data_roots: Mapping[str, Path | str]) -> dict[str, Any]:
    """Return a sweep's plain data with absolute paths, and with other folders of its data sets."""
    base = plain.get("base")
    if not isinstance(base, Mapping):
        return dict(plain)
    places: dict[str, Scalar] = {}
    for domain in ("source", "target"):
        dataset = value_at(base, f"data.{domain}.dataset")
        if isinstance(dataset, str) and dataset in data_roots:
            places[f"data.{domain}.root"] = str(data_roots[dataset])
    for field in PATH_FIELDS:
        place = places.get(field, value_at(base, field))
        if isinstance(place, str):
            places[field] = str(expanded(place).absolute())
    # All trials keep to the external labels that are there now. What is wrong with them is told with the line that names them.
    if EXTERNAL_FOLDER in places and value_at(base, EXTERNAL_DIGEST) is None:
        with suppress(SegdaError):
            places[EXTERNAL_DIGEST] = digest_in(Path(str(places[EXTERNAL_FOLDER])))
    # And to the checkpoints, but where each trial names one of its own.
    for field, digest in CHECKPOINTS.items():
        if field in places and field not in (plain.get("search") or {}) and value_at(base, digest) is None:
            with suppress(OSError):
                places[digest] = sha256_of(Path(str(places[field])))
    return {**plain, "base": with_values(base, places)}


def spec_from(plain: Mapping[str, Any], *, where: str) -> SweepSpec:
    """Return a sweep from plain data.

    Args:
        plain: what `SweepSpec.canonical` gives.
        where: what the data are, put before the message.

    Raises:
        ConfigError: they describe no sweep; one line.
    """
    spec = validated(SweepSpec, dict(plain), where=where)
    try:
        check_spec(spec)
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
