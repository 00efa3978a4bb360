"""What anybody may ask a ledger; every question is one transaction that only reads."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from segda.errors import ConfigError
from segda.names import nearest
from sweeps.ledger.connection import survives_restart
from sweeps.ledger.proofs import TRIAL_ROW, Proof, read_proofs
from sweeps.ledger.records import (
    Event,
    Point,
    SweepRecord,
    event_record,
    glance,
    point_record,
    sweep_record,
    trial_record,
)
from sweeps.ledger.tables import EVENT, PACKING, POINT, PROFILE, SWEEP, TRIAL
from sweeps.trial import TrialRecord, TrialState


class UnknownSweepError(ConfigError):
    """A ledger has no sweep of that name."""


class Queries:
    """The part of `sweeps.ledger.database.Ledger` that changes nothing.

    Attributes:
        has_server: whether its database is a server, which may be away for a while.
    """

    def __init__(self, engine: Engine) -> None:
        """Keep the connection pool of a database.

        Args:
            engine: SQLAlchemy engine.
        """
        self.has_server = engine.dialect.name != "sqlite"
        self._reader = engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Run a block in one transaction that only reads."""
        with self._reader.begin() as connection:
            yield connection

    # Sweeps

    @survives_restart
    def sweep(self, name: str) -> SweepRecord:
        """Return a sweep.

        Raises:
            ConfigError: there is none of that name.
        """
        with self.reading() as connection:
            row = connection.execute(sa.select(SWEEP).where(SWEEP.c.name == name)).mappings().first()
            if row is None:
                raise unknown_sweep(connection, name)
            return sweep_record(row)

    @survives_restart
    def sweeps(self) -> list[SweepRecord]:
        """Return all sweeps, oldest first."""
        with self.reading() as connection:
            rows = connection.execute(sa.select(SWEEP).order_by(SWEEP.c.created, SWEEP.c.name)).mappings()
            return [sweep_record(row) for row in rows]

    # Trials

    @survives_restart
    def find_complete(self, key: str) -> TrialRecord | None:
        """Return the oldest fully trained trial of any sweep that computed the same thing, or None.

        Args:
            key: its identity, see `sweeps.trial.trial_key`.
        """
        query = (
            sa.select(TRIAL)
            .where(TRIAL.c.key == key, TRIAL.c.state == TrialState.COMPLETE, TRIAL.c.reused.is_(None))
            .order_by(TRIAL.c.created)
        )
        with self.reading() as connection:
            row = connection.execute(query).mappings().first()
            return None if row is None else trial_record(row)

    @survives_restart
    def trial(self, sweep: str, number: int) -> TrialRecord:
        """Return a trial.

        Raises:
            ConfigError: the sweep or the trial does not exist.
        """
        with self.reading() as connection:
            row = connection.execute(sa.select(TRIAL).where(is_trial(sweep, number))).mappings().first()
            if row is None:
                raise unknown_trial(connection, sweep, number)
            return trial_record(row)

    @survives_restart
    def trials(self, sweep: str, numbers: Collection[int] | None = None) -> list[TrialRecord]:
        """Return the trials of a sweep, ordered by number; none for an unknown sweep.

        Args:
            sweep: the sweep.
            numbers: those to return; unset: all.
        """
        query = sa.select(TRIAL).where(TRIAL.c.sweep == sweep).order_by(TRIAL.c.number)
        if numbers is not None:
            query = query.where(TRIAL.c.number.in_(numbers))
        with self.reading() as connection:
            return [trial_record(row) for row in connection.execute(query).mappings()]

    @survives_restart
    def glances(self, sweep: str, *, metric: str) -> list[TrialRecord]:
        """Return the trials of a sweep without what makes them large, for who counts and compares thousands of them.

        Args:
            sweep: the sweep.
            metric: the only one that `metrics` and `profile` of the records have, if the trial has it.

        Returns:
            Records ordered by number; `params` and `config` are empty.
        """
        small = [column for column in TRIAL.c if column.name not in ("params", "config", "metrics", "profile")]
        figures = [
            sa.type_coerce(column, sa.JSON)[metric].label(column.name) for column in (TRIAL.c.metrics, TRIAL.c.profile)
        ]
        query = sa.select(*small, *figures).where(TRIAL.c.sweep == sweep).order_by(TRIAL.c.number)
        with self.reading() as connection:
            return [glance(row, metric) for row in connection.execute(query).mappings()]

    @survives_restart
    def counts(self) -> dict[str, dict[TrialState, int]]:
        """Return how many trials each sweep has in each state."""
        query = sa.select(TRIAL.c.sweep, TRIAL.c.state, sa.func.count()).group_by(TRIAL.c.sweep, TRIAL.c.state)
        found: dict[str, dict[TrialState, int]] = {}
        with self.reading() as connection:
            for sweep, state, count in connection.execute(query):
                found.setdefault(sweep, {})[TrialState(state)] = count
        return found

    @survives_restart
    def proofs(self, sweep: str) -> dict[int, Proof]:
        """Return what is kept to prove the trials of a sweep by, also of those that are not there any more."""
        with self.reading() as connection:
            return read_proofs(connection, TRIAL_ROW, sweep)

    # Points

    @survives_restart
    def points(self, sweep: str, number: int | None = None, *, steps: Collection[int] | None = None) -> list[Point]:
        """Return the reports of a trial, or of all trials, ordered by trial and step.

        Args:
            sweep: the sweep.
            number: the trial; unset: all.
            steps: those that are wanted; unset: all.
        """
        query = sa.select(POINT).where(POINT.c.sweep == sweep).order_by(POINT.c.number, POINT.c.step)
        if number is not None:
            query = query.where(POINT.c.number == number)
        if steps is not None:
            query = query.where(POINT.c.step.in_(steps))
        with self.reading() as connection:
            return [point_record(row) for row in connection.execute(query).mappings()]

    @survives_restart
    def curves(self, sweep: str, metrics: Sequence[str]) -> dict[str, dict[int, list[tuple[int, float]]]]:
        """Return what trials reported of some metrics, in one pass.

        Args:
            sweep: the sweep.
            metrics: their names.

        Returns:
            Metric -> number -> (step, value) by step; nothing of the trials without it.
        """
        reported = sa.type_coerce(POINT.c.metrics, sa.JSON)
        values = [reported[metric].label(f"value_{place}") for place, metric in enumerate(metrics)]
        query = sa.select(POINT.c.number, POINT.c.step, *values).where(POINT.c.sweep == sweep)
        found: dict[str, dict[int, list[tuple[int, float]]]] = {metric: {} for metric in metrics}
        with self.reading() as connection:
            for number, step, *figures in connection.execute(query.order_by(POINT.c.number, POINT.c.step)):
                for metric, figure in zip(metrics, figures, strict=True):
                    if figure is not None:
                        found[metric].setdefault(number, []).append((step, float(figure)))
        return found

    @survives_restart
    def report_times(self, sweep: str, kind: str) -> dict[int, list[float]]:
        """Return when the trials reported that events of a kind are about: number -> seconds since 1970.

        Args:
            sweep: the sweep.
            kind: of the events.
        """
        about = sa.select(EVENT.c.number).where(EVENT.c.sweep == sweep, EVENT.c.kind == kind)
        query = sa.select(POINT.c.number, POINT.c.timestamp).where(POINT.c.sweep == sweep, POINT.c.number.in_(about))
        found: dict[int, list[float]] = {}
        with self.reading() as connection:
            for number, timestamp in connection.execute(query):
                found.setdefault(number, []).append(timestamp)
        return found

    @survives_restart
    def last_reports(self, sweep: str, numbers: Collection[int]) -> dict[int, float]:
        """Return when trials last reported, seconds since 1970; nothing of those that have not.

        Args:
            sweep: the sweep.
            numbers: the trials.
        """
        query = (
            sa.select(POINT.c.number, sa.func.max(POINT.c.timestamp))
            .where(POINT.c.sweep == sweep, POINT.c.number.in_(numbers))
            .group_by(POINT.c.number)
        )
        with self.reading() as connection:
            return {number: float(timestamp) for number, timestamp in connection.execute(query)}

    @survives_restart
    def points_after(self, sweep: str, cursor: int, *, limit: int) -> list[Point]:
        """Return the reports that arrived after another one.

        Args:
            sweep: the sweep.
            cursor: `Point.id` of the last one seen; 0 for the beginning.
            limit: largest number of reports to return.

        Returns:
            Reports in order of arrival.
        """
        query = sa.select(POINT).where(POINT.c.sweep == sweep, POINT.c.id > cursor).order_by(POINT.c.id)
        with self.reading() as connection:
            return [point_record(row) for row in connection.execute(query.limit(limit)).mappings()]

    # Events

    @survives_restart
    def events(self, sweep: str) -> list[Event]:
        """Return what happened to a sweep, in order of arrival."""
        query = sa.select(EVENT).where(EVENT.c.sweep == sweep).order_by(EVENT.c.id)
        with self.reading() as connection:
            return [event_record(row) for row in connection.execute(query).mappings()]

    @survives_restart
    def last_event(self, sweep: str, kinds: Collection[str]) -> Event | None:
        """Return the newest event of any of some kinds, or None.

        Args:
            sweep: the sweep.
            kinds: of the event.
        """
        query = sa.select(EVENT).where(EVENT.c.sweep == sweep, EVENT.c.kind.in_(kinds)).order_by(EVENT.c.id.desc())
        with self.reading() as connection:
            row = connection.execute(query.limit(1)).mappings().first()
            return None if row is None else event_record(row)

    # Profiles and packings

    @survives_restart
    def profile(self, key: str) -> dict[str, float] | None:
        """Return the remembered efficiency of an architecture on a device, or None.

        Args:
            key: identity of architecture, input, device and precision.
        """
        with self.reading() as connection:
            row = connection.execute(sa.select(PROFILE.c.metrics).where(PROFILE.c.key == key)).first()
            return None if row is None else dict(row.metrics)

    @survives_restart
    def packing(self, key: str) -> int | None:
        """Return how many trials share a GPU, as found earlier, or None.

        Args:
            key: identity of configurations and GPU.
        """
        with self.reading() as connection:
            found: int | None = connection.execute(sa.select(PACKING.c.per_gpu).where(PACKING.c.key == key)).scalar()
            return found


def is_trial(sweep: str, number: int) -> sa.ColumnElement[bool]:
    """Return the condition that a row is of a trial."""
    return sa.and_(TRIAL.c.sweep == sweep, TRIAL.c.number == number)


def unknown_sweep(connection: Connection, name: str) -> ConfigError:
    """Return the error for a sweep that is not there."""
    known = list(connection.execute(sa.select(SWEEP.c.name).order_by(SWEEP.c.created)).scalars())
    listed = f"there are: {', '.join(known)}" if known else "there is none yet"
    return UnknownSweepError(f"no sweep {name!r} in the ledger{nearest(name, known)}; {listed}")


def unknown_trial(connection: Connection, sweep: str, number: int) -> ConfigError:
    """Return the error for a trial that is not there."""
    if connection.execute(sa.select(SWEEP.c.name).where(SWEEP.c.name == sweep)).first() is None:
        return unknown_sweep(connection, sweep)
    last = connection.execute(sa.select(sa.func.max(TRIAL.c.number)).where(TRIAL.c.sweep == sweep)).scalar()
    have = "it has none yet" if last is None else f"it has 0 to {last}"
    return ConfigError(f"no trial {number} in sweep {sweep!r}; {have}")
