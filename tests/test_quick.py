"""What `make quick` leaves out."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
HEAVY = [TESTS.parent / line for line in (TESTS / "heavy.txt").read_text().split()]
# Fixtures and servers that take seconds to start.
STARTS = re.compile(r"\bray_cluster\b|\bMlflowServer\(|\bpostgresql\b|\bmlflow_store\b")


def test_every_file_that_is_left_out_exists_and_the_list_is_in_order():
    assert [path for path in HEAVY if not path.is_file()] == []
    assert sorted(set(HEAVY)) == HEAVY


def test_no_other_file_starts_ray_mlflow_or_a_database():
    others = set(TESTS.rglob("test_*.py")) - {*HEAVY, Path(__file__)}
    assert len(others) > 100
    assert [path.name for path in sorted(others) if STARTS.search(path.read_text(encoding="utf-8"))] == []
