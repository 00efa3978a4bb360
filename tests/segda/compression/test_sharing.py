"""A trained network with shared weights is a checkpoint like any other, and the sizes are those of real files."""

import gzip
import json

import pytest
import torch

from segda.checkpoint import load_segmenter, read_checkpoint
from segda.compression.shared_file import read_shared, write_shared
from segda.compression.sharing import load_shared, share_weights
from segda.compression.weights import segmenter_weights
from segda.errors import DamagedCheckpointError, WeightsError
from segda.training import train


@pytest.fixture(scope="module")
def shared(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    return folder, share_weights(small, folder, bits=4)


def test_every_layer_has_few_values_and_everything_else_is_as_it_was(shared, small):
    folder, _ = shared
    network, _ = load_segmenter(small)
    before, after = network.state_dict(), load_segmenter(folder / "checkpoint.pt")[0].state_dict()
    weights = segmenter_weights(network, protect_ends=False)
    counted = 0
    for name, tensor in before.items():
        if name in weights and tensor.count_nonzero() > 16:
            assert after[name].unique().numel() <= 16
            counted += 1
        else:
            assert torch.equal(after[name], tensor)  # depthwise kernels too, whose channels have scales of their own
    assert counted > 20


def test_the_compact_file_is_the_same_network_bit_for_bit(shared):
    folder, _ = shared
    expected = load_segmenter(folder / "checkpoint.pt")[0].state_dict()
    found = load_shared(folder / "shared.npz")
    assert not found.training
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_sizes_are_those_of_the_files(shared):
    folder, sizes = shared
    content = (folder / "checkpoint.pt").read_bytes()
    assert sizes.shared_file == len(content)
    assert sizes.shared_file_gzip == len(gzip.compress(content, compresslevel=6, mtime=0))
    assert sizes.compact_file == (folder / "shared.npz").stat().st_size
    # Four bits of 32, codebooks on top; the rest, names and configuration are in the files too.
    assert 1 / 8 < sizes.shared / sizes.dense < 0.14
    assert sizes.compact_file < sizes.shared_file_gzip < sizes.file_gzip < sizes.file
    assert sizes.compact_file < 0.3 * sizes.file
    assert sizes.file == pytest.approx(sizes.shared_file, rel=0.01)
    assert json.loads((folder / "sizes.json").read_text())["bits"] == 4
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.pt", "shared.npz", "sizes.json"]


def test_no_training_goes_on_from_a_network_alone(shared, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGDA_CACHE", str(trained.cache))
    monkeypatch.setenv("SEGDA_LOVEDA_ROOT", str(trained.root))
    folder, _ = shared
    _, config = load_segmenter(folder / "checkpoint.pt")
    (tmp_path / "checkpoint.pt").write_bytes((folder / "checkpoint.pt").read_bytes())
    with pytest.raises(DamagedCheckpointError, match="has no state to go on from"):
        train(config, lambda *_: None, folder=tmp_path)
    assert read_checkpoint(folder / "checkpoint.pt")["optimizers"] == {}


def test_the_command_and_evaluate_read_what_it_wrote(segda, trained, small, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGDA_CACHE", str(trained.cache))
    end = segda("share-weights", small, tmp_path, "--bits", 5)
    assert end.code == 0
    assert "shared.npz" in end.output
    scored = segda("evaluate", tmp_path / "checkpoint.pt", "--data-root", f"loveda={trained.root}")
    assert scored.code == 0
    missing = segda("share-weights", tmp_path / "nothing.pt", tmp_path)
    assert (missing.code, missing.errors.count("\n")) == (2, 1)


def test_another_network_in_the_compact_file_is_refused(shared, tmp_path):
    folder, _ = shared
    tensors, about = read_shared(folder / "shared.npz")
    del tensors["classifier.1.weight"]
    write_shared(tmp_path / "shared.npz", tensors, network=about)
    with pytest.raises(WeightsError, match=r"does not fit fast_scnn: classifier.1.weight is missing"):
        load_shared(tmp_path / "shared.npz")
