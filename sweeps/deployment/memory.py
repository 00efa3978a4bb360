"""What was made and measured, kept by what it follows from, so that nothing is done twice.

A record is a JSON file whose name ends in a digest of everything that its content follows from: the checkpoint, the recipe, the
device, versions. It holds that too, and a digest of its own bytes and of the file that goes with it. Whatever does not fit was
damaged or comes from somewhere else: it is said, and done again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from segda.files import sha256_of, write_json

# Raise it when what is done, or what is kept of it, changes: records of older versions are then not found any more.
VERSION = 1
_LENGTH = 16  # hexadecimal digits


def key_of(origin: Mapping[str, Any]) -> str:
    """Return the identity of what follows from something, 16 hexadecimal digits.

    Args:
        origin: plain data.

    Example:
        >>> key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
        True
    """
    return _digest([VERSION, origin])[:_LENGTH]


class Memory:
    """Records in a folder."""

    def __init__(self, folder: Path, *, say: Callable[[str], None]) -> None:
        """Have a folder.

        Args:
            folder: of the records; made when the first is written.
            say: is told what does not fit, in one line.
        """
        self._folder = folder
        self._say = say

    def recall(
        self,
        name: str,
        origin: Mapping[str, Any],
        make: Callable[[], Mapping[str, Any]],
        *,
        file: Path | None = None,
        is_stale: Callable[[Mapping[str, Any]], bool] = lambda found: False,
    ) -> Mapping[str, Any]:
        """Return what is known, or make it and keep it.

        Args:
            name: what it is, for people; begins the name of the record.
            origin: everything that it follows from, plain data.
            make: makes it; returns plain data. The record is written once it has returned.
            file: what `make` writes, if it writes something; it must be there as it was written.
            is_stale: tells whether what is known is to be made again all the same.
        """
        path = self._folder / f"{name}-{key_of(origin)}.json"
        known, problem = _read(path, origin, file)
        if problem is not None:
            self._say(f"{path.name}: {problem}; it is made again")
        if known is not None and not is_stale(known):
            return known
        found = make()
        content = {"origin": origin, "found": found, "file": _digest_of(file)}
        write_json(path, {**content, "seal": _digest(content)})
        return found


def _read(path: Path, origin: Mapping[str, Any], file: Path | None) -> tuple[Mapping[str, Any] | None, str | None]:
    """Return what a record says, or what is wrong with it; neither where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError) as error:
        return None, f"the record cannot be read ({type(error).__name__})"
    if not isinstance(content, dict) or _digest({k: v for k, v in content.items() if k != "seal"}) != content.get(
        "seal"
    ):
        return None, "the record is not as it was written"
    if content["origin"] != json.loads(json.dumps(origin)):
        return None, "the record is of something else"
    if content["file"] != _digest_of(file):
        return None, f"{file.name if file is not None else 'its file'} is not there as it was written"
    found: Mapping[str, Any] = content["found"]
    return found, None


def _digest_of(file: Path | None) -> str | None:
    """Return the digest of a file; None where there is none."""
    try:
        return None if file is None else sha256_of(file)
    except FileNotFoundError:
        return None


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
