"""The only truth about a sweep: its file, its trials, what they reported, and what was decided about them.

One process decides about a sweep (its driver, see `sweeps.ledger.lease`), any number read. Every method is one transaction that
is on disk when the method returns, so a driver killed at any moment finds exactly what it had acknowledged. What a driver writes is
refused in the same transaction once another one has taken over, however late it comes. A SQLite file must lie on a local disk: its
locks do not work over network file systems; several machines share a PostgreSQL database instead.
"""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from segda.errors import ConfigError
from segda.files import make_private_folder, touch_private
from segda.masking import reason
from segda.names import nearest
from sweeps.failures import FailureClass
from sweeps.ledger.connection import address, check_file_system, no_ledger, survives_restart
from sweeps.ledger.plain import read
from sweeps.ledger.proofs import (
    TRIAL_ROW,
    next_chain,
    prove_profile,
    prove_sweep,
    prove_trial,
    read_proofs,
)
from sweeps.ledger.queries import Queries, UnknownSweepError, is_trial, unknown_sweep, unknown_trial
from sweeps.ledger.reading import engine_to_read
from sweeps.ledger.records import (
    RENAME,
    Point,
    SweepInfo,
    trial_record,
)
from sweeps.ledger.sweep_rows import remove_rows, rename_rows
from sweeps.ledger.tables import (
    BUSY_SECONDS,
    EVENT,
    PACKING,
    POINT,
    PROFILE,
    SWEEP,
    TRIAL,
    check_schema,
    has_schema,
    insert,
    prepare_sqlite,
)
from sweeps.suggestions import suggest
from sweeps.trial import TrialRecord, TrialState

_RECORD_FIELDS = tuple(item.name for item in dataclasses.fields(TrialRecord))
# What is given with a trial; `attempt` is what `start_attempt` counts.
_IDENTITY = frozenset(
    {"sweep", "number", "key", "kind", "params", "config", "seed", "parent", "name", "created", "attempt"}
)
_TRIAL_CHANGES = frozenset(_RECORD_FIELDS) - _IDENTITY
_SWEEP_CHANGES = frozenset({"spec", "parent_run_id", "state", "seconds", "stop_requested"})
_INFO_CHANGES = frozenset(item.name for item in dataclasses.fields(SweepInfo))
_NO_INFO = SweepInfo()


class LeaseLostError(ConfigError):
    """Another process drives the sweep now; what was to be written was not written."""

    def __init__(self, sweep: str) -> None:
        """Say so.

        Args:
            sweep: its name.
        """
        super().__init__(f"another process has taken over sweep {sweep!r}; this one has ended without harm")


class Ledger(Queries):
    """Sweeps, trials, points, events, profiles and packings in one database.

    All methods may be called from any thread. Open it with `Ledger.open`, close it with `close()` or a `with` block.

    Attributes:
        holders: sweep -> holder of the lease under which this process drives it, kept by `sweeps.ledger.lease.Lease`. What changes
            such a sweep raises `LeaseLostError` once another process has the lease; sweeps that are not named are written freely.
    """

    def __init__(self, engine: Engine) -> None:
        """Keep the connection pool of a database whose schema was checked; use `Ledger.open`.

        Args:
            engine: SQLAlchemy engine.
        """
        super().__init__(engine)
        self.holders: dict[str, str] = {}
        self._writer = engine.execution_options(sqlite_begin="IMMEDIATE")

    @classmethod
    def open(cls, location: Path | str, *, create: bool = True) -> "Ledger":
        """Open a ledger; make it when it is not there.

        Args:
            location: SQLite file, or an SQLAlchemy URL such as `postgresql+psycopg2://user@host/database`.
            create: whether a missing SQLite file is made, with its folder.

        Raises:
            ConfigError: the file is missing (`create=False`), is no ledger, was written by another version, or the
                database cannot be reached.
        """
        shown = str(location)
        try:
            url, shown = address(location)
            is_sqlite = url.get_backend_name() == "sqlite"
            if is_sqlite and not create and not Path(str(url.database)).is_file():
                raise no_ledger(shown)
            if is_sqlite and url.database:
                check_file_system(Path(url.database))
                make_private_folder(Path(url.database).parent)
                # Settings of sweeps hold passwords. SQLite gives the files beside it the same permissions.
                touch_private(Path(url.database), shared_as=Path(url.database).parent)
            options = {"connect_args": {"timeout": BUSY_SECONDS}} if is_sqlite else {"pool_pre_ping": True}
            engine = sa.create_engine(url, json_deserializer=read, **options)
        except ImportError as error:
            raise ConfigError(f"cannot open the ledger {shown}: {error}; install that driver or name a file") from error
        except (OSError, sa.exc.ArgumentError) as error:
            raise ConfigError(f"cannot open the ledger {shown}: {error}; name another file or database") from error
        if is_sqlite:
            prepare_sqlite(engine)
        ledger = cls(engine)
        try:
            with ledger.writing() as connection:
                check_schema(connection, shown)
        except sa.exc.DBAPIError as error:
            ledger.close()
            why = reason(error.orig or error)
            raise ConfigError(f"cannot open the ledger {shown}: {why}; name another file or database") from error
        except ConfigError:
            ledger.close()
            raise
        return ledger

    @classmethod
    def to_read(cls, location: Path | str) -> "Ledger":
        """Open a ledger for those who only read; methods that change it fail.

        No writer is waited for, whatever it holds and even if it is suspended, and neither file nor folder need be writable.

        Args:
            location: as in `open`.

        Raises:
            ConfigError: it is missing, is no ledger, was written by another version, or cannot be read.
        """
        shown = str(location)
        try:
            url, shown = address(location)
            if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
                raise no_ledger(shown)
            ledger = cls(engine_to_read(url))
        except (ImportError, sa.exc.ArgumentError) as error:
            raise ConfigError(f"cannot open the ledger {shown}: {error}; name another file or database") from error
        try:
            with ledger.reading() as connection:
                if not has_schema(connection, shown):
                    raise no_ledger(shown)
        except (sa.exc.DBAPIError, OSError) as error:
            ledger.close()
            why = reason(getattr(error, "orig", None) or error)
            raise ConfigError(f"cannot read the ledger {shown}: {why}; name another file or database") from error
        except ConfigError:
            ledger.close()
            raise
        return ledger

    def close(self) -> None:
        """Close all connections."""
        self._reader.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Run a block in one transaction that is on disk when the block has ended, and nowhere if it raised."""
        with self._writer.begin() as connection:
            yield connection

    @contextmanager
    def changing(self, sweep: str) -> Iterator[Connection]:
        """Run a block in one transaction that changes a sweep or its trials; nobody takes the sweep over meanwhile.

        Args:
            sweep: its name.

        Raises:
            ConfigError: there is no such sweep.
            LeaseLostError: this process drove it, and another one has taken over.
        """
        with self.writing() as connection:
            query = sa.select(SWEEP.c.driver).where(SWEEP.c.name == sweep).with_for_update()
            row = connection.execute(query).first()
            if row is None:
                raise unknown_sweep(connection, sweep)
            if self.holders.get(sweep, row.driver) != row.driver:
                raise LeaseLostError(sweep)
            yield connection

    # Sweeps

    def create_sweep(self, name: str, *, spec: Mapping[str, Any], info: SweepInfo = _NO_INFO) -> None:
        """Add a sweep.

        Args:
            name: its name, not taken yet.
            spec: the sweep file, plain data.
            info: where it comes from.

        Raises:
            ConfigError: the name is taken.
        """
        row = {"name": name, "spec": spec, "info": info.plain(), "created": time.time()}
        with self.writing() as connection:
            if connection.execute(insert(connection, SWEEP).values(**row).on_conflict_do_nothing()).rowcount == 0:
                raise ConfigError(
                    f"sweep {name!r} exists already; continue it with {suggest('resume', name)} or give the new one another name"
                )
            for other in connection.execute(sa.select(SWEEP.c.name, SWEEP.c.info).where(SWEEP.c.name != name)):
                if SweepInfo.from_plain(other.info).pending == (RENAME, name):
                    raise ConfigError(
                        f"sweep {other.name!r} is being renamed to {name!r}; give the new one another name, or finish "
                        f"{suggest('rename', other.name, name)} first"
                    )
            prove_sweep(connection, name)

    @survives_restart
    def remove_sweep(self, name: str) -> None:
        """Remove a sweep that was refused before it began; one that ever ran, has trials or is driven by somebody stays.

        Args:
            name: the sweep; nothing happens if there is none.
        """
        has_trials = sa.exists().where(TRIAL.c.sweep == name)
        is_unused = sa.and_(SWEEP.c.name == name, SWEEP.c.state.is_(None), SWEEP.c.driver.is_(None), ~has_trials)
        with self.writing() as connection:
            if connection.execute(sa.select(SWEEP.c.name).where(is_unused).with_for_update()).first() is not None:
                remove_rows(connection, name)

    @survives_restart
    def delete_sweep(self, name: str) -> None:
        """Remove a sweep with everything that the ledger has of it; nothing happens if there is none.

        Figures of architectures and packings stay: all sweeps share them.

        Args:
            name: the sweep. Other sweeps that took results of it over keep them, and an event that says where they are from.

        Raises:
            LeaseLostError: this process had its lease, and another one has taken over.
        """
        with suppress(UnknownSweepError), self.changing(name) as connection:
            remove_rows(connection, name)
        self.holders.pop(name, None)

    @survives_restart
    def rename_sweep(self, name: str, new: str, *, folder: str, new_folder: str) -> None:
        """Give a sweep another name everywhere in the ledger, also where other sweeps name it; nobody drives it afterwards.

        Args:
            name: the sweep; nothing happens if it has the new name already.
            new: not taken yet.
            folder: where its files were; settings of sweeps that name files in it name the new one from now on.
            new_folder: where they are now.

        Raises:
            ConfigError: there is no such sweep, or one has the new name.
            LeaseLostError: this process had its lease, and another one has taken over.
        """
        try:
            with self.changing(name) as connection:
                if connection.execute(sa.select(SWEEP.c.name).where(SWEEP.c.name == new)).first() is not None:
                    raise ConfigError(f"there is a sweep {new!r} already; choose another name")
                rename_rows(connection, name, new, folder=folder, new_folder=new_folder)
        except UnknownSweepError:
            if self.sweep(new).info.former_names[-1:] != (name,):
                raise
        self.holders.pop(name, None)

    @survives_restart
    def update_sweep(self, name: str, /, **changes: Any) -> None:
        """Change fields of a sweep.

        Args:
            name: the sweep.
            **changes: any of `spec`, `parent_run_id`, `state`, `seconds`, `stop_requested`.

        Raises:
            ConfigError: there is no sweep of that name.
            TypeError: another field was named.
        """
        _check_changes(changes, _SWEEP_CHANGES, "sweep")
        with self.changing(name) as connection:
            connection.execute(SWEEP.update().where(SWEEP.c.name == name).values(**changes))
            prove_sweep(connection, name)

    @survives_restart
    def update_info(self, name: str, /, **changes: Any) -> None:
        """Change fields of a sweep's `info`; the others stay as they are, whoever else changes them meanwhile.

        Args:
            name: the sweep.
            **changes: any field of `SweepInfo`.

        Raises:
            ConfigError: there is no sweep of that name.
            TypeError: another field was named.
        """
        _check_changes(changes, _INFO_CHANGES, "sweep's info")
        with self.changing(name) as connection:
            plain = connection.execute(sa.select(SWEEP.c.info).where(SWEEP.c.name == name)).scalar_one()
            info = dataclasses.replace(SweepInfo.from_plain(plain), **changes)
            connection.execute(SWEEP.update().where(SWEEP.c.name == name).values(info=info.plain()))
            prove_sweep(connection, name)

    # Trials

    @survives_restart
    def add_trial(
        self, record: TrialRecord, *, points: Iterable[Point] = (), data: str | None = None, code: str | None = None
    ) -> None:
        """Add a trial; call it before the trial is handed to anyone.

        Args:
            record: the trial; its number must be new. `created` of 0 becomes the present time.
            points: reports that it begins with, because its result is taken over; their ids are given anew.
            data: fingerprint of the data in its key.
            code: identity of the code in its key.

        Raises:
            ConfigError: the number is taken (a second driver works on the sweep) or the sweep does not exist.
        """
        row = {name: getattr(record, name) for name in _RECORD_FIELDS}
        row["created"] = record.created or time.time()
        with self.changing(record.sweep) as connection:
            query = sa.select(TRIAL.c.key, TRIAL.c.created).where(is_trial(record.sweep, record.number))
            found = connection.execute(query).first()
            if found is not None and record.created and tuple(found) == (record.key, record.created):
                return  # ours: the answer to an earlier call was lost
            if found is not None:
                raise ConfigError(
                    f"trial {record.number} of sweep {record.sweep!r} exists already; only one driver may work on "
                    f"a sweep: end the other one with {suggest('stop', record.sweep)}"
                )
            added = connection.execute(TRIAL.insert().values(**row).returning(TRIAL)).mappings().one()
            begins_with = [
                {"step": point.step, "timestamp": point.timestamp, "metrics": dict(point.metrics)} for point in points
            ]
            for point in begins_with:
                connection.execute(POINT.insert().values(sweep=record.sweep, number=record.number, **point))
            chain = next_chain(connection, record.sweep, record.number, added=begins_with)
            files = _files_of_origin(connection, record)
            prove_trial(connection, added, points=chain, data=data, code=code, files=files)

    @survives_restart
    def update_trial(self, sweep: str, number: int, /, *, attempt: int | None = None, **changes: Any) -> TrialRecord:
        """Change fields of a trial; what identifies it cannot change.

        Args:
            sweep: the sweep.
            number: the trial.
            attempt: of the worker whose message is the reason, see `start_attempt`; unset: no worker's message is.
            **changes: any field of `TrialRecord` that does not identify it.

        Returns:
            The trial as it is now.

        Raises:
            ConfigError: the sweep or the trial does not exist.
            LeaseLostError: somebody else has started another attempt.
            TypeError: another field was named.
        """
        _check_changes(changes, _TRIAL_CHANGES, "trial")
        with self.changing(sweep) as connection:
            found = connection.execute(sa.select(TRIAL.c.attempt).where(is_trial(sweep, number))).first()
            if found is None:
                raise unknown_trial(connection, sweep, number)
            if attempt is not None and attempt != found.attempt:
                raise LeaseLostError(sweep)
            return _change_trial(connection, sweep, number, changes)

    @survives_restart
    def start_attempt(self, sweep: str, number: int, *, worker: str) -> TrialRecord:
        """Hand a trial to a worker; whoever worked on it before is stale from now on.

        Args:
            sweep: the sweep.
            number: the trial; it becomes RUNNING.
            worker: node and process, e.g. `host:1234`.

        Returns:
            The trial as it is now. The worker must name its `attempt`, counted from 1, in `add_point`.

        Raises:
            ConfigError: the sweep or the trial does not exist, or the trial is finished.
        """
        with self.changing(sweep) as connection:
            query = sa.select(TRIAL.c.attempt, TRIAL.c.state, TRIAL.c.started).where(is_trial(sweep, number))
            row = connection.execute(query).first()
            if row is None:
                raise unknown_trial(connection, sweep, number)
            if TrialState(row.state).is_finished:
                raise ConfigError(
                    f"trial {number} of sweep {sweep!r} is {row.state}; a finished trial is not run again"
                )
            changes = {
                "state": TrialState.RUNNING,
                "attempt": row.attempt + 1,
                "worker": worker,
                "started": time.time() if row.started is None else row.started,
                "finished": None,
            }
            return _change_trial(connection, sweep, number, changes)

    @survives_restart
    def put_files(self, sweep: str, number: int, files: Mapping[str, str], *, attempt: int) -> None:
        """Keep the digests of the files that an attempt left; call it before the trial is complete.

        Args:
            sweep: the sweep.
            number: the trial.
            files: name of a file in the trial's folder -> digest.
            attempt: of the worker that tells them.

        Raises:
            ConfigError: the sweep or the trial does not exist.
            LeaseLostError: somebody else has started another attempt.
        """
        with self.changing(sweep) as connection:
            row = connection.execute(sa.select(TRIAL).where(is_trial(sweep, number))).mappings().first()
            if row is None:
                raise unknown_trial(connection, sweep, number)
            if attempt != row["attempt"]:
                raise LeaseLostError(sweep)
            prove_trial(connection, row, files=dict(files))

    # Points

    @survives_restart
    def add_point(
        self,
        sweep: str,
        number: int,
        *,
        attempt: int,
        step: int,
        timestamp: float,
        metrics: Mapping[str, float],
        **changes: Any,
    ) -> TrialRecord | None:
        """Acknowledge a report; the trial's `metrics` and `step` follow in the same transaction.

        Args:
            sweep: the sweep.
            number: the trial.
            attempt: of the reporting worker, see `start_attempt`.
            step: training step of the report.
            timestamp: when the driver heard of it, seconds since 1970.
            metrics: name -> value.
            **changes: fields of the trial that change in the same transaction, see `update_trial`.

        Returns:
            The trial as it is now; None if the attempt is stale or the step was acknowledged before. Then nothing changed.

        Raises:
            ConfigError: the sweep or the trial does not exist.
            TypeError: a field was named that cannot change.
        """
        if changes:
            _check_changes(changes, _TRIAL_CHANGES, "trial")
        values = {name: float(value) for name, value in metrics.items()}
        with self.changing(sweep) as connection:
            query = sa.select(TRIAL.c.attempt, TRIAL.c.step, TRIAL.c.metrics).where(is_trial(sweep, number))
            row = connection.execute(query).first()
            if row is None:
                raise unknown_trial(connection, sweep, number)
            same = sa.and_(POINT.c.sweep == sweep, POINT.c.number == number, POINT.c.step == step)
            if row.attempt != attempt or connection.execute(sa.select(POINT.c.id).where(same)).first() is not None:
                return None
            point = {"step": step, "timestamp": timestamp, "metrics": values}
            connection.execute(POINT.insert().values(sweep=sweep, number=number, **point))
            # A late report of an earlier step must not overwrite newer values.
            newest = row.metrics | values if step >= row.step else values | row.metrics
            changes |= {"metrics": newest, "step": max(step, row.step)}
            chain = next_chain(connection, sweep, number, added=[point])
            return _change_trial(connection, sweep, number, changes, points=chain)

    # Events

    @survives_restart
    def add_event(
        self,
        sweep: str,
        kind: str,
        message: str,
        *,
        number: int | None = None,
        timestamp: float | None = None,
        failure: FailureClass | None = None,
    ) -> None:
        """Note something that happened.

        Args:
            sweep: the sweep.
            kind: short word, e.g. `resumed`.
            message: one line for people.
            number: the trial that it is about.
            timestamp: seconds since 1970; unset: now.
            failure: class of the failure that it tells of.

        Raises:
            ConfigError: the sweep does not exist.
        """
        when = time.time() if timestamp is None else timestamp
        with self.changing(sweep) as connection:
            connection.execute(
                EVENT.insert().values(
                    sweep=sweep, kind=kind, message=message, number=number, timestamp=when, failure=failure
                )
            )

    # Profiles

    @survives_restart
    def put_profile(self, key: str, metrics: Mapping[str, float]) -> None:
        """Remember the efficiency of an architecture on a device; a newer one replaces it.

        Args:
            key: identity of architecture, input, device and precision.
            metrics: efficiency name -> value.
        """
        values = {name: float(value) for name, value in metrics.items()}
        with self.writing() as connection:
            connection.execute(
                insert(connection, PROFILE)
                .values(key=key, metrics=values)
                .on_conflict_do_update(index_elements=[PROFILE.c.key], set_={"metrics": values})
            )
            prove_profile(connection, key)

    # Packings

    @survives_restart
    def put_packing(self, key: str, per_gpu: int) -> None:
        """Remember how many trials share a GPU; a newer answer replaces it.

        Args:
            key: identity of configurations and GPU.
            per_gpu: trials at once, at least 1.
        """
        with self.writing() as connection:
            connection.execute(
                insert(connection, PACKING)
                .values(key=key, per_gpu=per_gpu)
                .on_conflict_do_update(index_elements=[PACKING.c.key], set_={"per_gpu": per_gpu})
            )


def _change_trial(
    connection: Connection, sweep: str, number: int, changes: Mapping[str, Any], **proven: Any
) -> TrialRecord:
    """Change fields of a trial that exists, and of its proof; return it as it is then."""
    update = TRIAL.update().where(is_trial(sweep, number)).values(**changes).returning(TRIAL)
    row = connection.execute(update).mappings().one()
    prove_trial(connection, row, **proven)
    return trial_record(row)


def _files_of_origin(connection: Connection, record: TrialRecord) -> Mapping[str, str]:
    """Return the digests of the files that a trial has from the one whose result it takes over."""
    if record.reused is None:
        return {}
    sweep, _, number = record.reused.rpartition("/")
    found = read_proofs(connection, TRIAL_ROW, sweep, number=int(number)).get(int(number))
    return {} if found is None else found.files


def _check_changes(changes: Mapping[str, Any], allowed: frozenset[str], what: str) -> None:
    for name in changes:
        if name not in allowed:
            raise TypeError(
                f"{name!r} of a {what} cannot be changed{nearest(name, allowed)}; can: {', '.join(sorted(allowed))}"
            )
    if not changes:
        raise TypeError(f"no change given; can change: {', '.join(sorted(allowed))}")
