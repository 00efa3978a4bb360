"""Who may read files that hold what is not for everybody."""

import os

import pytest

from segda.files import make_private_folder, touch_private


def mode(path):
    return path.stat().st_mode & 0o7777


@pytest.fixture(params=[0o022, 0o002, 0o077])
def _mask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_mask")
@pytest.mark.parametrize(
    ("folder_mode", "file_mode"), [(0o755, 0o600), (0o700, 0o600), (0o750, 0o600), (0o770, 0o660), (0o2775, 0o660)]
)
def test_a_file_is_its_owners_alone_unless_a_group_shares_the_folder(tmp_path, folder_mode, file_mode):
    folder = tmp_path / "store"
    folder.mkdir()
    folder.chmod(folder_mode)
    make_private_folder(folder)
    touch_private(folder / "ledger.db", shared_as=folder)
    assert (mode(folder), mode(folder / "ledger.db")) == (folder_mode, file_mode)


@pytest.mark.usefixtures("_mask")
def test_what_is_there_keeps_its_permissions_and_its_content(tmp_path):
    path = tmp_path / "ledger.db"
    path.write_text("content")
    path.chmod(0o644)
    touch_private(path, shared_as=tmp_path)
    assert (mode(path), path.read_text()) == (0o644, "content")


@pytest.mark.usefixtures("_mask")
def test_a_new_folder_is_its_owners_alone(tmp_path):
    make_private_folder(tmp_path / "new" / "store")
    assert mode(tmp_path / "new" / "store") == 0o700
