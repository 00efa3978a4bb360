"""No byte of a file of tensors is believed that is another than was written."""

import os

import pytest
import torch

from segda.checkpoint import load_segmenter, verify_checkpoint
from segda.errors import DamagedCheckpointError, WeightsError
from segda.torch_files import read_torch_file, verify_torch_file

CONTENT = {"weight": torch.arange(40.0).reshape(8, 5), "steps": torch.tensor(7), "text": "abc", "list": [1, 2.5, None]}


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save(CONTENT, path)
    return path


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) if isinstance(first[name], torch.Tensor) else first[name] == second[name]
        for name in first
    )


@pytest.mark.parametrize("mask", [0x10, 0xFF])
def test_a_byte_that_has_changed_is_refused_or_changes_nothing(written, mask):
    """Data, names, checksums, headers, directory. Some bytes have no meaning, such as padding and the time of writing.

    Bit 0x10 of an attribute in the directory makes PyTorch return what happens to be in memory.
    """
    whole = written.read_bytes()
    refused = 0
    for position in range(len(whole) // 2, len(whole)):
        changed = bytearray(whole)
        changed[position] ^= mask
        written.write_bytes(changed)
        try:
            verify_torch_file(written)
            assert same(read_torch_file(written), CONTENT), position
        except ValueError:
            refused += 1
    assert refused > len(whole) / 8


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused(written, share):
    os.truncate(written, int(written.stat().st_size * share))
    for call in (verify_torch_file, read_torch_file):
        with pytest.raises(ValueError, match=r".+"):
            call(written)


def test_every_reader_of_a_checkpoint_refuses_a_turned_bit_in_a_weight(written):
    content = written.read_bytes()
    weight = CONTENT["weight"].numpy().tobytes()
    place = content.index(weight) + len(weight) // 2
    written.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    for call in (verify_checkpoint, load_segmenter):
        with pytest.raises(DamagedCheckpointError, match=r"checkpoint\.pt cannot be read as a checkpoint \(Bad CRC-32"):
            call(written)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to")]
)
def test_memory_that_does_not_suffice_is_no_damage(written, monkeypatch, error):
    def load(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(type(error)) as caught:
        read_torch_file(written)
    assert caught.value is error


def test_what_cannot_be_opened_is_no_damage(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(WeightsError, match="cannot be read") as caught:
            verify_checkpoint(path)
        assert not isinstance(caught.value, DamagedCheckpointError)
    with pytest.raises(WeightsError, match="no checkpoint at"):
        verify_checkpoint(tmp_path / "nothing.pt")
