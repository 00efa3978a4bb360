"""Whether a Ray cluster answers at an address: Ray itself asks for minutes, and some of what may be there never answers."""

import os
import socket

from ray._private.services import canonicalize_bootstrap_address

from segda.errors import ConfigError

ANSWER_SECONDS = 30.0
# How every HTTP/2 client begins, gRPC's among them, and how the server does: a frame of settings.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_FRAME_HEADER, _TYPE, _SETTINGS = 9, 3, 4


def check_head(address: str) -> None:
    """Refuse an address at which no head of a cluster answers.

    Args:
        address: as `ray.init` takes it.

    Raises:
        ConfigError: nothing answers there within `ANSWER_SECONDS`, or something else than a head.
    """
    if "://" in address:
        raise ConfigError(
            f"a sweep cannot be driven from outside of a cluster ({address}); start it on one of its nodes with --address auto, or "
            "through `ray job submit`"
        )
    try:
        host, _, port = str(canonicalize_bootstrap_address(address)).rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("0", "false"):
                return  # it would not understand
            connection.sendall(_GREETING)
            answer = connection.recv(_FRAME_HEADER)
    except TimeoutError:
        reason = f"there was no answer within {ANSWER_SECONDS:.0f} s"
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
    else:
        if len(answer) == _FRAME_HEADER and answer[_TYPE] == _SETTINGS:
            return
        reason = "what answers is something else"
    raise ConfigError(
        f"there is no Ray cluster at {address}: {reason}; check --address (HOST:PORT of the head, or auto on one of its nodes), or "
        "leave it out to use this machine"
    )
