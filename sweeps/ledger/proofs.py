"""What an audit compares the ledger's rows and the trials' files with: digests, written together with what they are of.

A row that was changed by anything but this program, lost or added does not agree with its digest. Reports are chained, so a missing
one is found too. Of a trial stand beside it what its key was made of, and the digests of the files that its last attempt left.
Rows that an earlier version of this program wrote have none.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from sweeps.ledger.plain import encoded
from sweeps.ledger.tables import POINT, PROFILE, PROOF, SWEEP, TRIAL, insert

# Kinds of rows.
SWEEP_ROW, TRIAL_ROW, PROFILE_ROW = "sweep", "trial", "profile"
# What changes by the minute, by who drives it or by what is asked of its driver.
_VOLATILE = frozenset({"state", "driver", "driver_seen", "seconds", "stop_requested"})
_REAL = {column.name for table in (SWEEP, TRIAL) for column in table.c if isinstance(column.type, sa.Double)}
_COLUMNS = {
    SWEEP_ROW: [column for column in SWEEP.c if column.name not in _VOLATILE],
    TRIAL_ROW: [*TRIAL.c],
    PROFILE_ROW: [*PROFILE.c],
}


@dataclass(frozen=True)
class Proof:
    """What is kept about a row.

    Attributes:
        digest: of the row.
        points: of a trial's reports, in order of arrival.
        data: of a trial: fingerprint of the data in its key.
        code: of a trial: identity of the code in its key.
        files: of a trial: name of a file that its last attempt left -> digest, see `sweeps.execution.digests`.
    """

    digest: str
    points: str | None = None
    data: str | None = None
    code: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)


def row_digest(row: sa.RowMapping) -> str:
    """Return the digest of a row, 32 hexadecimal digits.

    Args:
        row: column -> value, as the database gave it back.
    """
    # SQLite gives back whole numbers of such columns as integers to whoever has just written them.
    return _digest(
        {str(name): float(value) if name in _REAL and value is not None else value for name, value in row.items()}
    )


def points_digest(points: Iterable[Mapping[str, Any]], *, before: str = "") -> str:
    """Return the digest of a chain of reports.

    Args:
        points: in order of arrival, with `step`, `timestamp` and `metrics`.
        before: digest of those before them.
    """
    for point in points:
        before = _digest([before, point["step"], float(point["timestamp"]), point["metrics"]])
    return before


def _digest(plain: Any) -> str:
    text = json.dumps(encoded(plain), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def prove_sweep(connection: Connection, name: str) -> None:
    """Write the digest of a sweep's row as it is now."""
    row = connection.execute(sa.select(*_COLUMNS[SWEEP_ROW]).where(SWEEP.c.name == name)).mappings().one()
    _prove(connection, SWEEP_ROW, name, row)


def prove_trial(connection: Connection, row: sa.RowMapping, **more: Any) -> None:
    """Write the digest of a trial's row.

    Args:
        connection: of the transaction that changed it.
        row: as the database gave it back.
        **more: other fields of `Proof` that become known.
    """
    _prove(connection, TRIAL_ROW, str(row["sweep"]), row, number=int(row["number"]), **more)


def prove_profile(connection: Connection, key: str) -> None:
    """Write the digest of an architecture's figures as they are now."""
    row = connection.execute(sa.select(PROFILE).where(PROFILE.c.key == key)).mappings().one()
    _prove(connection, PROFILE_ROW, key, row)


def next_chain(connection: Connection, sweep: str, number: int, *, added: Sequence[Mapping[str, Any]]) -> str:
    """Return the digest of a trial's reports, once others were added.

    Args:
        connection: of the transaction that added them.
        sweep: its sweep.
        number: the trial.
        added: their `step`, `timestamp` and `metrics`, in order.
    """
    known = connection.execute(
        sa.select(PROOF.c.points).where(PROOF.c.kind == TRIAL_ROW, PROOF.c.name == sweep, PROOF.c.number == number)
    ).scalar()
    if known is not None:
        return points_digest(added, before=known)
    # The first ones, or the first of a version that keeps digests.
    query = sa.select(POINT).where(POINT.c.sweep == sweep, POINT.c.number == number).order_by(POINT.c.id)
    return points_digest([dict(row) for row in connection.execute(query).mappings()])


def _prove(connection: Connection, kind: str, name: str, row: sa.RowMapping, *, number: int = 0, **more: Any) -> None:
    values = {"digest": row_digest(row), **more}
    connection.execute(
        insert(connection, PROOF)
        .values(kind=kind, name=name, number=number, **values)
        .on_conflict_do_update(index_elements=[PROOF.c.kind, PROOF.c.name, PROOF.c.number], set_=values)
    )


def read_proofs(connection: Connection, kind: str, name: str, *, number: int | None = None) -> dict[int, Proof]:
    """Return what is kept about rows, by number; nothing in a ledger that no version with proofs has written to.

    Args:
        connection: any.
        kind: of the rows.
        name: sweep, or key of an architecture's figures.
        number: of the only row that is wanted; unset: all.
    """
    if not sa.inspect(connection).has_table(PROOF.name):
        return {}
    query = sa.select(PROOF).where(PROOF.c.kind == kind, PROOF.c.name == name)
    if number is not None:
        query = query.where(PROOF.c.number == number)
    rows = connection.execute(query).mappings()
    return {
        row["number"]: Proof(row["digest"], row["points"], row["data"], row["code"], row["files"] or {}) for row in rows
    }


def current_digests(connection: Connection, kind: str, name: str) -> dict[int, str]:
    """Return the digests of rows as they are now, by number.

    Args:
        connection: any.
        kind: of the rows.
        name: sweep, or key of an architecture's figures.
    """
    key = {SWEEP_ROW: SWEEP.c.name, TRIAL_ROW: TRIAL.c.sweep, PROFILE_ROW: PROFILE.c.key}[kind]
    rows = connection.execute(sa.select(*_COLUMNS[kind]).where(key == name)).mappings()
    return {int(row.get("number", 0)): row_digest(row) for row in rows}


def current_chains(connection: Connection, sweep: str) -> dict[int, str]:
    """Return the digest of each trial's reports as they are now.

    Args:
        connection: any.
        sweep: its name.
    """
    chains: dict[int, str] = {}
    for row in connection.execute(sa.select(POINT).where(POINT.c.sweep == sweep).order_by(POINT.c.id)).mappings():
        chains[row["number"]] = points_digest([dict(row)], before=chains.get(row["number"], ""))
    return chains
