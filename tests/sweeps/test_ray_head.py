"""Addresses at which there is no cluster."""

import contextlib
import socket
import threading

import pytest

from segda.errors import ConfigError
from sweeps.execution import cluster, ray_head  # sets Ray's environment first
from sweeps.execution.ray_head import check_head

assert cluster


@contextlib.contextmanager
def listening(answer):
    """Listen, and answer those who come with these bytes; None: with nothing, for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def serve():
            with contextlib.suppress(OSError), server.accept()[0] as client:
                client.recv(100)
                if answer is not None:
                    client.sendall(answer)
                ended.wait(20)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        ended.set()


@pytest.fixture
def as_given(monkeypatch):
    """Ray takes this machine's own address in place of 127.0.0.1."""
    monkeypatch.setattr(ray_head, "canonicalize_bootstrap_address", lambda address: address)


def test_a_head_is_known_by_how_it_greets(as_given):
    with listening(bytes((0, 0, 6, 4, 0, 0, 0, 0, 0)) + bytes(6)) as address:
        check_head(address)


@pytest.mark.parametrize(
    ("answer", "reason"), [(None, "no answer within 0 s"), (b"HTTP/1.1 400 Bad Request\r\n", "is something else")]
)
def test_what_never_answers_or_is_no_head_is_refused(as_given, monkeypatch, answer, reason):
    monkeypatch.setattr(ray_head, "ANSWER_SECONDS", 0.2)
    with listening(answer) as address, pytest.raises(ConfigError, match=f"no Ray cluster at {address}: .*{reason}"):
        check_head(address)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "refused"),
        ("head", "check --address"),
        ("ray://head:10001", "from outside of a cluster"),
    ],
)
def test_an_address_without_a_cluster_is_refused_in_a_line(address, said):
    with pytest.raises(ConfigError, match=said) as error:
        check_head(address)
    assert "\n" not in str(error.value)


def test_auto_without_a_cluster_is_refused(monkeypatch):
    def find(address):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray_head, "canonicalize_bootstrap_address", find)
    with pytest.raises(ConfigError, match="no Ray cluster at auto: Could not find any"):
        check_head("auto")
