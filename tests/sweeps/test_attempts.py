"""A worker that was suspended at any moment takes nothing from its successor, which waits for nobody."""

import pytest

from segda.files import claiming, remove_unfinished, replacing, write_text
from sweeps.execution import attempts
from sweeps.execution.attempts import (
    ATTEMPT,
    StaleAttemptError,
    check_ours,
    files_of_attempt,
    newest_attempt,
    take_over,
)

CHECKPOINT = "checkpoint.pt"


def claimed(folder, attempt, *, suspended=lambda: None):
    """The claim of an attempt whose process is suspended after each look at the folder, while something else happens."""

    def check():
        check_ours(folder, attempt=attempt)
        suspended()

    return claiming(folder, check, generation=attempt)


def partials(folder):
    return [path.name for path in folder.glob(".*.partial")]


def test_a_save_that_was_suspended_before_the_rename_does_not_replace_the_successor_s(tmp_path):
    take_over(tmp_path, attempt=1)

    def successor():
        take_over(tmp_path, attempt=2)
        with claimed(tmp_path, 2):
            write_text(tmp_path / CHECKPOINT, "second")

    with pytest.raises(StaleAttemptError, match="attempt 1 was replaced"), claimed(tmp_path, 1, suspended=successor):
        write_text(tmp_path / CHECKPOINT, "first")
    assert (tmp_path / CHECKPOINT).read_text() == "second"
    assert partials(tmp_path) == []


def test_a_save_that_was_suspended_below_the_folder_does_not_replace_the_successor_s_either(tmp_path):
    take_over(tmp_path, attempt=1)
    path = tmp_path / "deep" / "file"
    suspended = claimed(tmp_path, 1, suspended=lambda: take_over(tmp_path, attempt=2))
    with pytest.raises(StaleAttemptError), suspended:
        write_text(path, "first")
    assert not path.exists()


def test_an_attempt_that_is_suspended_while_it_begins_does_not_take_the_folder_back(tmp_path, monkeypatch):
    check = attempts.check_beginning

    def suspended(folder, *, attempt):
        check(folder, attempt=attempt)
        monkeypatch.setattr(attempts, "check_beginning", check)
        take_over(tmp_path, attempt=3)

    monkeypatch.setattr(attempts, "check_beginning", suspended)
    with pytest.raises(StaleAttemptError, match="attempt 2 begins after attempt 3"):
        take_over(tmp_path, attempt=2)
    assert newest_attempt(tmp_path) == 3


def test_what_killed_saves_left_is_removed_and_what_is_being_written_stays(tmp_path):
    (tmp_path / ".checkpoint.pt.1-0badcafe.partial").write_text("of a killed attempt")
    (tmp_path / ".result.json.0badcafe.partial").write_text("of a killed attempt of an earlier version")
    take_over(tmp_path, attempt=3)
    with claimed(tmp_path, 3), replacing(tmp_path / CHECKPOINT) as partial:
        partial.write_text("third")
        assert [path.name for path in tmp_path.glob(".*.partial")] == [partial.name]
        with claimed(tmp_path, 2):
            remove_unfinished(tmp_path)  # by an attempt that does not know yet that it was replaced
        remove_unfinished(tmp_path)
    assert (tmp_path / CHECKPOINT).read_text() == "third"


def test_a_missing_file_of_one_s_own_is_told_as_it_is(tmp_path):
    take_over(tmp_path, attempt=1)
    with pytest.raises(FileNotFoundError), claimed(tmp_path, 1), replacing(tmp_path / CHECKPOINT):
        pass  # writes nothing


def test_a_folder_whose_files_are_still_to_be_brought_is_that_of_its_new_attempt_with_the_old_one_s_files(tmp_path):
    take_over(tmp_path, attempt=1)
    take_over(tmp_path, attempt=3, files_of=1)
    assert (tmp_path / ATTEMPT).read_text() == "3 after 1\n"
    assert (newest_attempt(tmp_path), files_of_attempt(tmp_path)) == (3, 1)
    with pytest.raises(StaleAttemptError):
        check_ours(tmp_path, attempt=1)
