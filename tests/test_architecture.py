"""The page about the architecture speaks of what is there."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "ARCHITECTURE.md"


def test_every_file_that_the_page_names_exists():
    names = re.findall(r"`((?:segda|sweeps)/[^`]+)`", PAGE.read_text())
    assert len(names) > 20
    assert [name for name in names if not (REPOSITORY / name).is_file()] == []


def test_readme_and_contributing_lead_to_the_page():
    for file in ("README.md", "CONTRIBUTING.md"):
        assert "](docs/ARCHITECTURE.md)" in (REPOSITORY / file).read_text()
