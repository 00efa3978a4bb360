"""A small trained network for what is done to trained networks."""

from pathlib import Path

import pytest

from segda.loading import load_config
from segda.training import train


@pytest.fixture(scope="package")
def small(trained, tmp_path_factory) -> Path:
    """The checkpoint of a small network on the same data."""
    folder = tmp_path_factory.mktemp("small")
    changes = {"model": {"name": "fast_scnn"}, "steps": 1, "oracle": "never"}
    config = load_config(trained.config, changes=changes, data_roots={"loveda": trained.root})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGDA_CACHE", str(trained.cache))
        return train(config, lambda *_: None, folder=folder).checkpoint
