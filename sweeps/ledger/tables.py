"""Tables of the ledger, their version, and how SQLite is made durable."""

import sqlite3
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect

from segda.errors import ConfigError
from sweeps.ledger.plain import encoded

SCHEMA_VERSION = 5
_SCHEMA_LOCK = 0x5E99A  # any number that all programs agree on
BUSY_SECONDS = 30.0


class _Plain(sa.TypeDecorator[Any]):
    """Plain data as JSON; NaN and infinities survive the round trip, since engines read with `sweeps.ledger.plain.read`."""

    impl = sa.JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return encoded(value)


TABLES = sa.MetaData()
_schema = sa.Table("ledger_schema", TABLES, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))
SWEEP = sa.Table(
    "sweep",
    TABLES,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("spec", _Plain, nullable=False),
    sa.Column("info", _Plain, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("parent_run_id", sa.String(200)),
    sa.Column("state", sa.String(40)),
    sa.Column("driver", sa.String(300)),
    sa.Column("driver_seen", sa.Double),
    sa.Column("seconds", sa.Double, nullable=False, default=0.0),
    sa.Column("stop_requested", sa.Double),
)
TRIAL = sa.Table(
    "trial",
    TABLES,
    sa.Column("sweep", sa.ForeignKey("sweep.name"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("key", sa.String(64), nullable=False, index=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("params", _Plain, nullable=False),
    sa.Column("config", _Plain, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("parent", sa.Integer),
    sa.Column("name", sa.String(200)),
    sa.Column("metrics", _Plain, nullable=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("profile", _Plain, nullable=False),
    sa.Column("failure", sa.String(20)),
    sa.Column("error", sa.Text),
    sa.Column("run_id", sa.String(200)),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("started", sa.Double),
    sa.Column("finished", sa.Double),
    sa.Column("worker", sa.String(300)),
    sa.Column("device", sa.String(200)),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("micro_batch", sa.Integer),
    sa.Column("reused", sa.String(300)),
)


def _of_trial() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["sweep", "number"], ["trial.sweep", "trial.number"])


# sqlite_autoincrement: an id is never given twice, so that a reader's cursor stays valid.
POINT = sa.Table(
    "point",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("sweep", sa.String(200), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("timestamp", sa.Double, nullable=False),
    sa.Column("metrics", _Plain, nullable=False),
    _of_trial(),
    sa.UniqueConstraint("sweep", "number", "step"),
    sqlite_autoincrement=True,
)
EVENT = sa.Table(
    "event",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("sweep", sa.ForeignKey("sweep.name"), nullable=False, index=True),
    sa.Column("number", sa.Integer),
    sa.Column("timestamp", sa.Double, nullable=False),
    sa.Column("kind", sa.String(60), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("failure", sa.String(20)),
    sqlite_autoincrement=True,
)
PROFILE = sa.Table(
    "profile",
    TABLES,
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("metrics", _Plain, nullable=False),
)
PACKING = sa.Table(
    "packing",
    TABLES,
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("per_gpu", sa.Integer, nullable=False),
)
# See `sweeps.ledger.proofs`. A ledger that is older gets the table when it is opened to be written.
PROOF = sa.Table(
    "proof",
    TABLES,
    sa.Column("kind", sa.String(20), primary_key=True),
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("points", sa.String(64)),
    sa.Column("data", sa.String(64)),
    sa.Column("code", sa.String(300)),
    sa.Column("files", sa.JSON),
)


def prepare_sqlite(engine: Engine) -> None:
    """Make SQLite durable, and let a transaction take the write lock at its start."""

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: DBAPIConnection, _: Any) -> None:
        # The driver would begin transactions late, on the first change; a reader that turns writer then fails at once
        # instead of waiting its turn. `_on_begin` begins them.
        connection.isolation_level = None
        cursor = connection.cursor()
        _use_write_ahead_log(cursor)
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('sqlite_begin', 'DEFERRED')}")


def _use_write_ahead_log(cursor: Any) -> None:
    """Switch a file's journal; SQLite does not wait by itself when another process opens a new file at the same moment."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def insert(connection: Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT that may say what happens when the row is there already, because somebody else was faster."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def check_schema(connection: Connection, shown: str) -> None:
    """Make the tables in an empty database, or check that they are ours."""
    if connection.dialect.name == "postgresql":
        # Of several that open an empty database at once, one makes the tables; SQLite has one writer anyway.
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
    if has_schema(connection, shown):
        PROOF.create(connection, checkfirst=True)
        return
    TABLES.create_all(connection)
    connection.execute(_schema.insert().values(version=SCHEMA_VERSION))


def has_schema(connection: Connection, shown: str) -> bool:
    """Return whether a database has the tables of a ledger.

    Raises:
        ConfigError: they are of another version, or of another program.
    """
    present = set(sa.inspect(connection).get_table_names())
    if _schema.name in present:
        version = connection.execute(sa.select(_schema.c.version)).scalar_one()
        if version != SCHEMA_VERSION:
            raise ConfigError(
                f"ledger {shown} has schema version {version}, this program reads version {SCHEMA_VERSION}; use the "
                "version of this program that wrote it, or name another file for new sweeps"
            )
        return True
    foreign = present & TABLES.tables.keys()
    if foreign:
        raise ConfigError(
            f"{shown} is no ledger, but has tables of the same names ({', '.join(sorted(foreign))}); "
            "name another database"
        )
    return False
