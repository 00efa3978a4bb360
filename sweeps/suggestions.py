"""Commands that this program tells people to type next: they work when copied, into any shell and in any folder.

Whoever named a store or a ledger that is not the usual one has to name it with the next command too. So the process remembers
which ones it was told of last (`sweeps.commands.places`), and every command that it suggests is written here.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from segda.masking import masked

_TAKES_NO_LEDGER = frozenset({"check", "reproduce"})
_TAKES_NO_STORE = frozenset({"check"})


@dataclass(frozen=True)
class Place:
    """What has to be said of a sweep's place.

    Attributes:
        store: folder of the store, absolute; None: the usual one.
        ledger: address of the ledger; None: the file in the store, or what the environment says.
    """

    store: Path | None = None
    ledger: str | None = None

    def command(self, *words: str) -> str:
        """Return a command of this program, quoted for a shell, with the place of its sweep.

        Args:
            *words: the command and its arguments; one in capitals is for the reader to fill in.

        Example:
            >>> Place(store=Path("/data/my runs")).command("resume", "demo", "--hours", "H")
            "sweeps resume demo --hours H --store '/data/my runs'"
        """
        place = []
        if self.store is not None and words[0] not in _TAKES_NO_STORE:
            place += ["--store", str(self.store)]
        if self.ledger is not None and words[0] not in _TAKES_NO_LEDGER:
            place += ["--ledger", without_password(self.ledger)]
        return shlex.join(["sweeps", *words, *place])


_USUAL = Place()
_current = _USUAL


def remember(place: Place = _USUAL) -> None:
    """Let commands be suggested for a place from now on.

    Args:
        place: the one that the user named; unset: the usual one.
    """
    global _current  # a process is at one place, and its threads suggest commands too
    _current = place


def remembered() -> Place:
    """Return the place that commands are suggested for now."""
    return _current


def suggest(*words: str) -> str:
    """Return a command for the place that is remembered, between backquotes, as it stands in a sentence.

    Args:
        *words: see `Place.command`.

    Example:
        >>> remember(Place(store=Path("/data/my runs")))
        >>> suggest("resume", "demo", "--hours", "H")
        "`sweeps resume demo --hours H --store '/data/my runs'`"
        >>> remember()
        >>> suggest("resume", "demo")
        '`sweeps resume demo`'
    """
    return f"`{_current.command(*words)}`"


def without_password(address: str) -> str:
    """Return the address of a ledger without any password; the driver then asks the environment or a password file.

    The user's name moves into the query, where every driver of PostgreSQL reads it: before an @ it would be taken for a key
    wherever texts are masked, and an address with asterisks does not work.

    Example:
        >>> without_password("postgresql+psycopg2://me:secret@host/db")
        'postgresql+psycopg2://host/db?user=me'
    """
    if "://" not in address:
        return address
    try:
        url = sa.make_url(address)
    except (ValueError, sa.exc.ArgumentError):
        return masked(address)
    query = {name: value for name, value in url.query.items() if masked(f"{name}={value}") == f"{name}={value}"}
    if url.username:
        query["user"] = url.username
    bare = sa.URL.create(url.drivername, host=url.host, port=url.port, database=url.database, query=query)
    return bare.render_as_string(hide_password=False)
