"""A work file after kills at any byte, damage, and changes of what it is made of."""

import logging
from contextlib import suppress

import pytest

from segda.errors import ConfigError
from segda.work_file import work_file

MADE_OF = {"input": "a", "window": "512"}
STRIPS = [b"first" * 50, b"", bytes(range(256))]


def _write(path, *, strips=STRIPS, made_of=MADE_OF):
    """Begin a file and be interrupted."""
    with suppress(KeyboardInterrupt), work_file(path, made_of) as work:
        for strip in strips:
            work.append(strip)
        raise KeyboardInterrupt


def test_what_was_finished_is_there_again_and_goes_on(tmp_path):
    path = tmp_path / "new" / ".a.work"
    _write(path)
    with work_file(path, MADE_OF) as work:
        assert len(work) == 3
        work.append(b"last")
        assert list(work.strips()) == [*STRIPS, b"last"]
        assert list(work.strips())[-1] == b"last"
    assert not path.exists(), "it has served"


def test_a_kill_at_any_byte_costs_the_strip_that_was_being_written(tmp_path):
    path = tmp_path / ".a.work"
    _write(path, strips=STRIPS[:1])
    one = path.stat().st_size
    _write(path, strips=STRIPS[2:])
    whole = path.read_bytes()
    for end in range(one, len(whole)):
        path.write_bytes(whole[:end])
        _write(path, strips=[])
        assert path.stat().st_size == one
    path.write_bytes(whole)
    with work_file(path, MADE_OF) as work:
        assert list(work.strips()) == [STRIPS[0], STRIPS[2]]


def test_a_strip_that_is_not_what_was_written_is_made_again(tmp_path):
    path = tmp_path / ".a.work"
    _write(path)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with work_file(path, MADE_OF) as work:
        assert list(work.strips()) == STRIPS[:2]


@pytest.mark.parametrize("change", [{"window": "256"}, {"stretch": "none"}])
def test_a_changed_setting_begins_anew_and_is_named(tmp_path, caplog, change):
    path = tmp_path / ".a.work"
    _write(path)
    with caplog.at_level(logging.WARNING), work_file(path, MADE_OF | change) as work:
        assert len(work) == 0
        assert f"({next(iter(change))}): it begins anew" in caplog.text
        work.append(b"x")
        assert list(work.strips()) == [b"x"]


@pytest.mark.parametrize("content", [b"no json\n", b"[1]\n", b"\xff\xfe", b'{"input": "a"'])
def test_a_file_of_another_kind_begins_anew(tmp_path, caplog, content):
    path = tmp_path / ".a.work"
    path.write_bytes(content)
    with work_file(path, MADE_OF) as work:
        assert len(work) == 0
    assert "it begins anew" in caplog.text


def test_a_run_that_has_finished_nothing_leaves_nothing(tmp_path):
    _write(tmp_path / ".a.work", strips=[])
    assert list(tmp_path.iterdir()) == []


def test_only_one_process_is_at_work(tmp_path):
    path = tmp_path / ".a.work"
    with work_file(path, MADE_OF) as work:
        work.append(b"x")
        with pytest.raises(ConfigError, match="another process is at work on"), work_file(path, MADE_OF):
            pass
        assert list(work.strips()) == [b"x"]
