"""Whether somebody listens where MLflow is said to be."""

import socket

import pytest

from sweeps.tracking.server import check_port

UNREACHABLE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_server_where_nobody_listens_is_refused_at_once():
    with pytest.raises(ConnectionRefusedError):
        check_port(UNREACHABLE)


@pytest.mark.parametrize("form", ["http://127.0.0.1:{}", "127.0.0.1:{}"])
def test_a_server_behind_a_proxy_is_asked_for_there(monkeypatch, form):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = form.format(proxy.getsockname()[1])
        monkeypatch.setenv("HTTP_PROXY", address)
        monkeypatch.setenv("http_proxy", address)
        check_port("http://mlflow.invalid:5000")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(ConnectionRefusedError):
            check_port(UNREACHABLE)
    monkeypatch.delenv("no_proxy")
    with pytest.raises(ConnectionRefusedError):  # the proxy is gone
        check_port("http://mlflow.invalid:5000")
