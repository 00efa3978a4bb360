"""The small network, built."""

import pytest

from segda.models import Segmenter

from .tiny import build


@pytest.fixture
def tiny() -> Segmenter:
    return build()
