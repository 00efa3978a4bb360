"""All rows of a sweep, in all tables: taken out, or put under another name.

Whatever the ledger's digests prove of them holds afterwards as before: rows that were as they were written get the digest of what
they are now, others keep one that does not fit, so that an audit finds them still.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from sweeps.ledger.proofs import (
    SWEEP_ROW,
    TRIAL_ROW,
    current_digests,
    prove_sweep,
    prove_trial,
    read_proofs,
)
from sweeps.ledger.queries import is_trial
from sweeps.ledger.records import ORIGIN_DELETED, SweepInfo
from sweeps.ledger.tables import EVENT, POINT, PROOF, SWEEP, TRIAL

_OWN_PROOF = PROOF.c.kind.in_((SWEEP_ROW, TRIAL_ROW))
_Row = tuple[str, str, int]  # kind, sweep, number
_Moved = Callable[[Any], Any]


def remove_rows(connection: Connection, name: str) -> None:
    """Remove a sweep, its trials, their reports, its events and its digests.

    Args:
        connection: of a transaction that has the sweep's row.
        name: the sweep. Trials of others that have its results get an event each that says that the sweep was deleted.
    """
    taken = sa.select(TRIAL.c.sweep, TRIAL.c.number, TRIAL.c.reused).where(_is_taken_from(name), TRIAL.c.sweep != name)
    for row in connection.execute(taken).all():
        text = f"its result was taken from trial {row.reused}, and that sweep was deleted"
        about = {"sweep": row.sweep, "number": row.number, "timestamp": time.time()}
        connection.execute(EVENT.insert().values(kind=ORIGIN_DELETED, message=text, **about))
    connection.execute(PROOF.delete().where(_OWN_PROOF, PROOF.c.name == name))
    connection.execute(POINT.delete().where(POINT.c.sweep == name))
    connection.execute(EVENT.delete().where(EVENT.c.sweep == name))
    connection.execute(TRIAL.delete().where(TRIAL.c.sweep == name))
    connection.execute(SWEEP.delete().where(SWEEP.c.name == name))


def rename_rows(connection: Connection, name: str, new: str, *, folder: str, new_folder: str) -> None:
    """Put a sweep under another name, and let others name it so.

    Args:
        connection: of a transaction that has the sweep's row.
        name: the sweep.
        new: not taken.
        folder: where its files were.
        new_folder: where they are.
    """

    def moved(plain: Any) -> Any:
        return _moved(plain, folder, new_folder)

    affected = {name, *_concerned(connection, name, moved)}
    sound = _sound(connection, affected)
    _copy_row(connection, name, new)
    _copy_trials(connection, name, new)
    for table in (POINT, EVENT):
        connection.execute(table.update().where(table.c.sweep == name).values(sweep=new))
    connection.execute(PROOF.update().where(_OWN_PROOF, PROOF.c.name == name).values(name=new))
    connection.execute(TRIAL.delete().where(TRIAL.c.sweep == name))
    connection.execute(SWEEP.delete().where(SWEEP.c.name == name))
    origin = sa.literal(new).concat(sa.func.substr(TRIAL.c.reused, len(name) + 1))
    connection.execute(TRIAL.update().where(_is_taken_from(name)).values(reused=origin))
    for sweep in sorted(new if other == name else other for other in affected):
        _rename_in(connection, sweep, name, new, moved)
    for kind, sweep, number in sound:
        _prove(connection, kind, new if sweep == name else sweep, number)


def _is_taken_from(name: str) -> sa.ColumnElement[bool]:
    return TRIAL.c.reused.startswith(f"{name}/", autoescape=True)


def _concerned(connection: Connection, name: str, moved: _Moved) -> Iterable[str]:
    """Yield the other sweeps that name a sweep, its results or its files."""
    yield from connection.execute(sa.select(TRIAL.c.sweep).where(_is_taken_from(name)).distinct()).scalars().all()
    for row in connection.execute(sa.select(SWEEP.c.name, SWEEP.c.spec, SWEEP.c.info)).all():
        if name in learned_from(row.spec) or name in row.info["warm_start"] or moved(row.spec) != row.spec:
            yield row.name


def learned_from(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the earlier sweeps that a sweep's sampler begins with.

    Args:
        spec: the sweep file, plain data.
    """
    return tuple((spec.get("sampler") or {}).get("warm_start") or ())


def _sound(connection: Connection, sweeps: Iterable[str]) -> list[_Row]:
    """Return the rows that are as they were written."""
    found: list[_Row] = []
    for sweep in sweeps:
        for kind in (SWEEP_ROW, TRIAL_ROW):
            now = current_digests(connection, kind, sweep)
            proofs = read_proofs(connection, kind, sweep)
            found += [(kind, sweep, number) for number, proof in proofs.items() if now.get(number) == proof.digest]
    return found


def _prove(connection: Connection, kind: str, sweep: str, number: int) -> None:
    if kind == SWEEP_ROW:
        prove_sweep(connection, sweep)
        return
    prove_trial(connection, connection.execute(sa.select(TRIAL).where(is_trial(sweep, number))).mappings().one())


def _copy_row(connection: Connection, name: str, new: str) -> None:
    row = dict(connection.execute(sa.select(SWEEP).where(SWEEP.c.name == name)).mappings().one())
    info = SweepInfo.from_plain(row["info"])
    info = dataclasses.replace(info, former_names=(*info.former_names, name), pending=())
    row |= {"name": new, "info": info.plain(), "spec": {**row["spec"], "name": new}}
    connection.execute(SWEEP.insert().values(**row | {"driver": None, "driver_seen": None, "stop_requested": None}))


def _copy_trials(connection: Connection, name: str, new: str) -> None:
    columns = [sa.literal(new) if column is TRIAL.c.sweep else column for column in TRIAL.c]
    connection.execute(TRIAL.insert().from_select([*TRIAL.c], sa.select(*columns).where(TRIAL.c.sweep == name)))


def _rename_in(connection: Connection, sweep: str, name: str, new: str, moved: _Moved) -> None:
    """Let the settings of a sweep and of its trials name a sweep and its files otherwise."""
    row = connection.execute(sa.select(SWEEP.c.spec, SWEEP.c.info).where(SWEEP.c.name == sweep)).one()
    spec, info = moved(row.spec), dict(row.info)
    if name in learned_from(spec):
        names = [new if other == name else other for other in learned_from(spec)]
        spec = {**spec, "sampler": {**spec["sampler"], "warm_start": names}}
    info["warm_start"] = {new if other == name else other: known for other, known in info["warm_start"].items()}
    if spec != row.spec or info != row.info:
        connection.execute(SWEEP.update().where(SWEEP.c.name == sweep).values(spec=spec, info=info))
    if moved(row.spec) == row.spec:
        return
    trials = connection.execute(sa.select(TRIAL.c.number, TRIAL.c.config, TRIAL.c.params).where(TRIAL.c.sweep == sweep))
    for trial in trials.all():
        values = {"config": moved(trial.config), "params": moved(trial.params)}
        connection.execute(TRIAL.update().where(is_trial(sweep, trial.number)).values(**values))


def _moved(plain: Any, folder: str, new_folder: str) -> Any:
    """Return plain data whose texts name files in a new folder where they named some in the old one."""
    if isinstance(plain, Mapping):
        return {key: _moved(value, folder, new_folder) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [_moved(value, folder, new_folder) for value in plain]
    if isinstance(plain, str) and plain.startswith(f"{folder}/"):
        return new_folder + plain.removeprefix(folder)
    return plain
