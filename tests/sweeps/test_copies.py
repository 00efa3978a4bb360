"""Checkpoints that are kept for other trials; what a copied run computes is tested in tests/segda/test_schedule.py."""

import pytest

from sweeps.schedulers.copies import begin_from, copy_at, drop_copies, keep_copy


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "donor" / "checkpoint.pt"
    path.parent.mkdir()
    path.write_text("after 2")
    return path


def test_a_kept_checkpoint_stays_when_training_goes_on(checkpoint):
    keep_copy(checkpoint, step=2)
    newer = checkpoint.with_name("new")
    newer.write_text("after 4")
    newer.replace(checkpoint)
    assert copy_at(checkpoint.parent, 2).read_text() == "after 2"


def test_a_report_that_is_sent_again_does_not_replace_the_copy(checkpoint):
    keep_copy(checkpoint, step=2)
    checkpoint.unlink()
    checkpoint.write_text("after 4")
    keep_copy(checkpoint, step=2)
    assert copy_at(checkpoint.parent, 2).read_text() == "after 2"


def test_a_checkpoint_is_copied_where_links_are_impossible(checkpoint, monkeypatch):
    def refuse(*arguments):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    keep_copy(checkpoint, step=2)
    assert copy_at(checkpoint.parent, 2).read_text() == "after 2"


def test_copies_are_dropped_and_nothing_else(checkpoint):
    for step in (2, 40):
        keep_copy(checkpoint, step=step)
    drop_copies(checkpoint.parent)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint.pt"]


def test_a_trial_with_a_checkpoint_of_its_own_keeps_it(checkpoint, tmp_path, make_spec):
    config = make_spec().train_config({"optimizer.lr": 0.1}, seed=0)
    begin_from(tmp_path / "unread", config=config, folder=checkpoint.parent)
    assert checkpoint.read_text() == "after 2"


@pytest.mark.parametrize("content", [None, "no checkpoint"])
def test_a_missing_or_broken_copy_lets_the_trial_train_from_the_start(tmp_path, make_spec, content, caplog):
    source = tmp_path / "checkpoint-2.pt"
    if content is not None:
        source.write_text(content)
    begin_from(source, config=make_spec().train_config({"optimizer.lr": 0.1}, seed=0), folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert "the trial trains from the start" in caplog.text
