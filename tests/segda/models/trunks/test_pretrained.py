import hashlib
import logging
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segda.errors import WeightsError
from segda.models import build_segmenter
from segda.models.bisenet_v1 import BiSeNetV1
from segda.models.trunks import Pyramid, base, pretrained
from segda.models.trunks.base import PublishedWeights
from segda.models.trunks.pretrained import load_imagenet_weights
from segda.models.trunks.resnet import resnet18


class Trunk(base.Trunk):
    """A trunk of few weights: the loader works on names and shapes."""

    def __init__(self, width: int = 4, file: str = "resnet18-00000000.pth") -> None:
        super().__init__()
        self.published = PublishedWeights(file, classifier=("fc.",))
        self.conv1 = nn.Conv2d(3, width, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(nn.Conv2d(width, width, 3), nn.BatchNorm2d(width))

    def forward(self, image: Tensor) -> Pyramid:
        raise NotImplementedError


def published_state(trunk: nn.Module | None = None) -> dict[str, Tensor]:
    """A state dict as published: a trunk and a classifier."""
    state: dict[str, Tensor] = dict((trunk or Trunk()).state_dict())
    return state | {"fc.weight": torch.zeros(10, 4), "fc.bias": torch.zeros(10)}


def save_with_digest(state: dict[str, Any], folder: Path) -> Path:
    """Write a file whose name carries the head of its SHA-256."""
    plain = folder / "plain.pth"
    torch.save(state, plain)
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()[:8]
    return plain.rename(folder / f"resnet18-{digest}.pth")


def is_loaded(trunk: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[name]) for name, value in trunk.state_dict().items())


class _SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty user cache; nothing is found elsewhere."""
    monkeypatch.delenv("SEGDA_WEIGHTS", raising=False)
    monkeypatch.setattr(pretrained.platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    return tmp_path / "cache" / "weights"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that stands for the official address."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_SilentHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(pretrained, "_BASE_ADDRESS", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_local_file_is_loaded_without_its_classifier(tmp_path: Path) -> None:
    state = published_state()
    file = tmp_path / "mine.pth"
    torch.save(state, file)
    trunk = Trunk()

    load_imagenet_weights(trunk, name="resnet18", pretrained="imagenet", weights_file=file)

    assert is_loaded(trunk, state)


def test_a_built_network_holds_the_weights(tmp_path: Path) -> None:
    state = published_state(resnet18())
    file = tmp_path / "mine.pth"
    torch.save(state, file)

    config = BiSeNetV1.Config(backbone="resnet18", pretrained="imagenet", weights_file=file)

    assert is_loaded(build_segmenter(config, num_classes=3).backbone, state)
    assert not is_loaded(build_segmenter(config, num_classes=3, pretrained=False).backbone, state)


def test_random_weights_are_logged_as_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    trunk = Trunk()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}

    with caplog.at_level(logging.INFO, logger="segda"):
        load_imagenet_weights(trunk, name="resnet18", pretrained="none")

    assert is_loaded(trunk, before)
    assert "resnet18 starts from random weights, as the configuration asks" in caplog.text


def test_the_folder_of_the_variable_comes_before_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    state = published_state()
    file = save_with_digest(state, folder)
    cache.mkdir(parents=True)
    (cache / file.name).write_bytes(b"not looked at")
    monkeypatch.setenv("SEGDA_WEIGHTS", str(folder))
    trunk = Trunk(file=file.name)

    load_imagenet_weights(trunk, name="resnet18", pretrained="imagenet")

    assert is_loaded(trunk, state)


def test_a_download_lands_in_the_cache_and_is_not_repeated(cache: Path, served: Path) -> None:
    state = published_state()
    file = save_with_digest(state, served)
    trunk = Trunk(file=file.name)

    load_imagenet_weights(trunk, name="resnet18", pretrained="imagenet")
    file.unlink()
    again = Trunk(file=file.name)
    load_imagenet_weights(again, name="resnet18", pretrained="imagenet")

    assert is_loaded(trunk, state)
    assert is_loaded(again, state)
    assert [path.name for path in cache.iterdir()] == [file.name]


def test_a_download_with_another_checksum_is_refused_and_leaves_no_file(cache: Path, served: Path) -> None:
    file = served / "resnet18-00000000.pth"
    torch.save(published_state(), file)

    with pytest.raises(WeightsError, match="should have a SHA-256 that starts with 00000000"):
        load_imagenet_weights(Trunk(), name="resnet18", pretrained="imagenet")

    assert list(cache.iterdir()) == []


def test_without_the_file_and_the_network_the_error_names_three_ways_out(cache: Path, served: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_imagenet_weights(Trunk(file="resnet18-12345678.pth"), name="resnet18", pretrained="imagenet")

    message = str(caught.value)
    assert str(cache / "resnet18-12345678.pth") in message
    assert "model.weights_file" in message
    assert "model.pretrained: none" in message
    assert "\n" not in message
    assert list(cache.iterdir()) == []


def test_a_missing_local_file_is_not_replaced_by_a_download(tmp_path: Path, served: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights of resnet18 at .*absent\.pth"):
        load_imagenet_weights(Trunk(), name="resnet18", pretrained="imagenet", weights_file=tmp_path / "absent.pth")


def test_a_local_file_that_breaks_its_promised_checksum_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "resnet18-deadbeef.pth"
    torch.save(published_state(), file)

    with pytest.raises(WeightsError, match="starts with deadbeef"):
        load_imagenet_weights(Trunk(), name="resnet18", pretrained="imagenet", weights_file=file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer1.1.bias"), r"layer1\.1\.bias is missing"),
        (lambda state: state.update(extra=torch.zeros(1)), "extra is not a part of this trunk"),
        (lambda state: state.update({"bn1.bias": torch.zeros(3)}), r"bn1\.bias has shape \[3\] instead of \[4\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, change: Any, message: str) -> None:
    state = published_state()
    change(state)
    file = tmp_path / "mine.pth"
    torch.save(state, file)

    with pytest.raises(WeightsError, match=message):
        load_imagenet_weights(Trunk(), name="resnet18", pretrained="imagenet", weights_file=file)


def test_refused_weights_leave_the_trunk_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    torch.save(published_state(), file)
    trunk = Trunk(width=8)
    before = {name: value.clone() for name, value in trunk.state_dict().items()}

    with pytest.raises(WeightsError, match=r"and \d+ more"):
        load_imagenet_weights(trunk, name="resnet18", pretrained="imagenet", weights_file=file)

    assert is_loaded(trunk, before)


@pytest.mark.parametrize("content", [b"", b"not a state dict", b"PK\x03\x04 torn"])
def test_an_unreadable_file_is_one_line_of_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "mine.pth"
    file.write_bytes(content)

    with pytest.raises(WeightsError, match="cannot be read") as caught:
        load_imagenet_weights(Trunk(), name="resnet18", pretrained="imagenet", weights_file=file)

    assert "\n" not in str(caught.value)


def test_a_file_without_counters_of_batches_is_accepted(tmp_path: Path) -> None:
    state = published_state()
    file = tmp_path / "old.pth"
    torch.save({name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}, file)
    trunk = Trunk()

    load_imagenet_weights(trunk, name="resnet18", pretrained="imagenet", weights_file=file)

    assert torch.equal(trunk.conv1.weight, state["conv1.weight"])


def test_code_in_a_weights_file_does_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return Path.touch, (tmp_path / "ran",)

    file = tmp_path / "mine.pth"
    torch.save({"conv1.weight": Bomb()}, file)

    with pytest.raises(WeightsError, match="cannot be read"):
        load_imagenet_weights(Trunk(), name="resnet18", pretrained="imagenet", weights_file=file)

    assert not (tmp_path / "ran").exists()


WEIGHT = "conv1.weight"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda state: [state], id="list"),
        pytest.param(lambda state: state[WEIGHT], id="tensor"),
        pytest.param(lambda state: None, id="none"),
        pytest.param(lambda state: "weights", id="text"),
        pytest.param(lambda state: {}, id="empty"),
        pytest.param(lambda state: {"state_dict": state}, id="nested"),
        pytest.param(lambda state: {"format": 2, "method": state, "step": 3}, id="checkpoint"),
        pytest.param(lambda state: dict(enumerate(state.values())), id="numbered"),
        pytest.param(lambda state: nn.Linear(2, 2), id="module"),
        pytest.param(lambda state: state | {WEIGHT: [0.0]}, id="list as weight"),
        pytest.param(lambda state: state | {WEIGHT: state[WEIGHT].to(torch.int8)}, id="integers"),
        pytest.param(lambda state: state | {WEIGHT: state[WEIGHT].to(torch.complex64)}, id="complex"),
        pytest.param(lambda state: state | {WEIGHT: state[WEIGHT].to_sparse()}, id="sparse"),
        pytest.param(lambda state: state | {WEIGHT: state[WEIGHT] * float("nan")}, id="nan"),
        pytest.param(lambda state: state | {WEIGHT: state[WEIGHT].mT.expand(4, 3, 3, 3)[:2]}, id="other shape"),
        pytest.param(lambda state: state | {"bn1.num_batches_tracked": torch.tensor(0.5)}, id="counter of halves"),
    ],
)
@pytest.mark.parametrize("is_archive", [True, False])
def test_a_sound_file_of_other_content_is_one_line_of_error(tmp_path: Path, content: Any, is_archive: bool) -> None:
    file = tmp_path / "mine.pth"
    torch.save(content(published_state()), file, _use_new_zipfile_serialization=is_archive)
    trunk = Trunk()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}

    with pytest.raises(WeightsError, match=r"mine\.pth") as caught:
        load_imagenet_weights(trunk, name="resnet18", pretrained="imagenet", weights_file=file)

    assert "\n" not in str(caught.value)
    assert is_loaded(trunk, before)


def test_a_turned_bit_in_a_weights_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    state = published_state()
    torch.save(state, file)
    content = bytearray(file.read_bytes())
    content[content.index(state[WEIGHT].numpy().tobytes()) + 2] ^= 1
    file.write_bytes(content)

    with pytest.raises(WeightsError, match="cannot be read"):
        load_imagenet_weights(Trunk(), name="resnet18", pretrained="imagenet", weights_file=file)


def test_weights_of_half_precision_are_accepted(tmp_path: Path) -> None:
    state = published_state()
    file = tmp_path / "half.pth"
    torch.save({name: value.half() if value.is_floating_point() else value for name, value in state.items()}, file)
    trunk = Trunk()

    load_imagenet_weights(trunk, name="resnet18", pretrained="imagenet", weights_file=file)

    assert torch.allclose(trunk.conv1.weight, state[WEIGHT], atol=1e-3)
