"""Passwords and keys, which no text that leaves the process shows: errors, logs, pages, what MLflow is sent.

The ledger keeps them, because a sweep is resumed from it; its file is its owner's alone.
"""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
_LONGEST_REASON = 300  # characters
_SECRET = (
    r"(?:[\w.-]*(?:password|passwd|passphrase|pwd|secret|token|credentials?|signature"
    r"|(?:api|access|account|private|secret|auth|sas)[-_]?key(?:[-_]?id)?)|(?:[\w.-]*[_.-])?pass|sig)"
)
_IS_SECRET = re.compile(_SECRET, re.IGNORECASE)
# In a query, in an option, in the environment of a command, in a database driver's `password=...`, in YAML, in JSON within JSON;
# quotes stay. In a query, where `key` and `auth` say it too, what assigns and separates may be written as `%3D`.
_ASSIGNS = r"\\?[\"']?\s*(?:[=:]>?|%3[ad])\s*(?:!\S*\s+|[|>][-+\d]*\s+)?"
_ASSIGNED = re.compile(
    rf"((?:(?<![\w.-]){_SECRET}{_ASSIGNS}|(?<=[?&;])(?:key|auth)=|--{_SECRET}\s+))"
    r"(?:(\\?[\"'])(?:(?!\2).)*\2|[\"']?[^\s&\"'`<>]+)",
    re.IGNORECASE,
)
_AUTHORIZED = re.compile(
    r"(authorization[\"']?\s*[:=]\s*[\"']?(?:(?:basic|bearer)\s+)?|\bbearer\s+|(?<=\s)(?:-u|--user)[\s=]*[^\s:]+:)[^\s\"'`]+",
    re.IGNORECASE,
)
_BEGINS_AS_ADDRESS = re.compile(r"[a-z][\w+.:-]*://", re.IGNORECASE)
# Who signs in ends at the last @: passwords have / # ? : and @ in them. A path with an @ is cut too, if a colon is before it.
_USER = re.compile(r"://(?:([^\s/?#:@]*:)\S*|[^\s/?#:]+)@")
_USER_WITHIN_QUERY = re.compile(r"(?<=%3a%2f%2f)[^\s&\"']+(?=%40)", re.IGNORECASE)  # an address as the value of a query
_USER_OF_ADDRESS = re.compile(r"://(?:([^/?#:@]*:).*|[^/?#:]+)@", re.DOTALL)


def masked(text: str, *, with_user: bool = False) -> str:
    """Return a text without the passwords, tokens and keys in it.

    Args:
        text: an address, or any text with addresses, commands or settings in it.
        with_user: whether names of users stay, for an address that will be used again.

    Example:
        >>> masked("postgresql://me:p@ss/word@db/mlflow"), masked("http://host/x?token=abc&page=2")
        ('postgresql://***@db/mlflow', 'http://host/x?token=***&page=2')
    """
    user = _USER_OF_ADDRESS if _BEGINS_AS_ADDRESS.match(text) and "\n" not in text else _USER
    shown = user.sub(lambda found: f"://{(found[1] or '') if with_user else ''}{HIDDEN}@", text)
    shown = _USER_WITHIN_QUERY.sub(HIDDEN, shown)
    return _AUTHORIZED.sub(rf"\1{HIDDEN}", _ASSIGNED.sub(rf"\1\2{HIDDEN}\2", shown))


def masked_plain(value: Any) -> Any:
    """Return plain data without the passwords, tokens and keys in its texts; what stands under such a name is hidden whole.

    Example:
        >>> masked_plain({"tracking": {"uri": "http://me:secret@host"}, "api_key": "abc", "steps": 3})
        {'tracking': {'uri': 'http://***@host'}, 'api_key': '***', 'steps': 3}
    """
    if isinstance(value, Mapping):
        return {
            key: HIDDEN
            if item and not isinstance(item, bool) and _IS_SECRET.fullmatch(str(key))
            else masked_plain(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [masked_plain(item) for item in value]
    return masked(value) if isinstance(value, str) else value


def reason(error: BaseException) -> str:
    """Return why something failed: one line without passwords."""
    return masked(" ".join(str(error).split()))[:_LONGEST_REASON] or type(error).__name__
