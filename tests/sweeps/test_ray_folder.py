"""Where the Ray that a driver starts keeps its sockets and logs."""

import os
import stat

import pytest

from segda.errors import ConfigError
from sweeps.execution import ray_folder as module
from sweeps.execution.ray_folder import ensure_token, ray_folder


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Let folders of a test be short enough."""
    monkeypatch.setattr(module, "_LONGEST_SOCKET", len(str(tmp_path / "short")) + module._IN_FOLDER)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "short"))
    (tmp_path / "short").mkdir()
    return tmp_path / "short"


def test_it_is_private_and_gone_at_the_end(places):
    with ray_folder() as folder:
        assert folder.parent == places
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "session").mkdir()
    assert list(places.iterdir()) == []


def test_that_of_a_killed_driver_is_deleted_and_that_of_a_living_one_stays(places):
    dead = places / "sweeps-ray-12345678"
    dead.mkdir()
    (dead / "driver").touch()
    with ray_folder() as living, ray_folder() as mine:
        assert sorted(places.iterdir()) == sorted([living, mine])


def test_a_place_that_is_too_long_or_cannot_be_written_is_passed_over(places, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 30)))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    monkeypatch.setattr(module, "_PLACES", (str(places),))
    with ray_folder() as folder:
        assert folder.parent == places
    monkeypatch.setattr(module, "_PLACES", ())
    with pytest.raises(ConfigError, match=r"is too long; .*none: No such file or directory.*RAY_TMPDIR"), ray_folder():
        pytest.fail("there is no such folder")


@pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null"])
def test_without_a_home_to_write_to_processes_share_a_token(monkeypatch, home):
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "restored at the end")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    ensure_token()
    token = os.environ["RAY_AUTH_TOKEN"]
    assert len(token) == 32
    ensure_token()
    assert os.environ["RAY_AUTH_TOKEN"] == token


def test_a_home_keeps_the_token(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "restored at the end")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    ensure_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
