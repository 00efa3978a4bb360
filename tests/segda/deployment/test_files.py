"""ONNX files and programs of torch.export: what they carry, and what must be noticed when they are made or read."""

import io
import json
import zipfile
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from segda.deployment import Accepts, ArtefactRecord, ShippedNetwork, load_artefact
from segda.deployment.onnx_file import opset_of, write_onnx
from segda.deployment.program import capture
from segda.deployment.torch_file import read_program, write_program
from segda.errors import DeviceError, ExportError, WeightsError

from .tiny import Tiny, build, images

RECORD = ArtefactRecord(
    network="tiny",
    classes=("sky", "road", "a; b", "Straße"),
    source="scenes/urban",
    target="scenes/rural",
    data_terms={"scenes": "none"},
    trained_size=(40, 48),
    batch=None,
    size=None,
    argmax="full",
    precision="fp32",
    calibrated_on="",
    checkpoint="0" * 64,
    config={"data": {"height": 40}},
    versions={"torch": "2"},
)


@pytest.fixture(scope="module")
def network() -> ShippedNetwork:
    return ShippedNetwork(build())


@pytest.fixture(scope="module")
def program(network):
    return capture(network, Accepts())


@pytest.fixture(scope="module")
def onnx_path(program, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    write_onnx(program, path, accepts=Accepts(), metadata=RECORD.texts())
    return path


@pytest.fixture(scope="module")
def pt2_path(program, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "tiny.pt2"
    write_program(program, path, metadata=RECORD.texts())
    return path


def test_both_files_say_what_they_are_and_what_the_network_says(network, onnx_path, pt2_path) -> None:
    for path in (onnx_path, pt2_path):
        artefact = load_artefact(path)
        assert artefact.record == RECORD
        for count, height, width in ((2, 96, 160), (1, 33, 47), (3, 64, 65)):
            image = images(count, height, width)
            assert torch.equal(artefact(image), network(image)), (path, height, width)


def test_axes_of_the_onnx_file_have_names_and_the_metadata_are_readable(onnx_path) -> None:
    model = onnx.load(onnx_path)
    (image,), (classes,) = model.graph.input, model.graph.output
    assert (image.name, classes.name) == ("image", "classes")
    names = [[axis.dim_param or axis.dim_value for axis in one.type.tensor_type.shape.dim] for one in (image, classes)]
    assert names == [["batch", 3, "height", "width"], ["batch", "height", "width"]]
    kinds = {one.type.tensor_type.elem_type for one in (image, classes)}
    assert kinds == {onnx.TensorProto.UINT8}
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert (texts["network"], json.loads(texts["classes"])[3], texts["precision"]) == ("tiny", "Straße", "fp32")
    assert opset_of(model) == 20
    assert not {node.op_type for node in model.graph.node} & {"BatchNormalization"}


def test_an_opset_that_the_exporter_replaces_without_a_word_is_refused(program, tmp_path) -> None:
    with pytest.raises(ExportError, match="opset 13 was asked for and the exporter wrote 18"):
        write_onnx(program, tmp_path / "old.onnx", accepts=Accepts(), metadata={}, opset=13)
    assert list(tmp_path.iterdir()) == []


def test_a_file_for_one_size_takes_no_other(network, tmp_path) -> None:
    accepts = Accepts(batch=2, size=(40, 48))
    record = RECORD.model_copy(update={"batch": 2, "size": (40, 48)})
    program, path = capture(network, accepts), tmp_path / "fixed.onnx"
    write_onnx(program, path, accepts=accepts, metadata=record.texts(), opset=18)
    artefact, image = load_artefact(path), images(2, 40, 48)
    assert torch.equal(artefact(image), network(image))
    with pytest.raises(ValueError, match=r"expected images uint8 \[2, 3, 40, 48\], got uint8 \[1, 3, 40, 48\]"):
        artefact(image[:1])


def test_a_pooling_whose_bins_the_exporter_freezes_is_right_at_the_size_of_the_example_alone(tmp_path) -> None:
    """The reason for comparing at another size: neither export nor file nor the size of the example show it."""

    class Pools(Tiny):
        def between(self, features):
            bins = nn.functional.adaptive_avg_pool2d(features, 2)
            return features + 5 * nn.functional.interpolate(bins, size=features.shape[2:], mode="bilinear")

    network = ShippedNetwork(build(Pools))
    path = tmp_path / "pools.onnx"
    write_onnx(capture(network, Accepts()), path, accepts=Accepts(), metadata=RECORD.texts())
    artefact, shares = load_artefact(path), []
    for height, width in ((96, 160), (65, 97)):
        image = images(2, height, width)
        try:
            shares.append(float((artefact(image) == network(image)).float().mean()))
        except Exception:  # the other way in which it shows
            shares.append(0.0)
    assert shares[0] == 1
    assert shares[1] < 0.9999


def turned(path: Path) -> bytes:
    """Return the bytes of an ONNX file in which one bit of one weight is another one."""
    content = bytearray(path.read_bytes())
    largest = max(onnx.load(path).graph.initializer, key=lambda tensor: len(tensor.raw_data)).raw_data
    content[content.index(largest) + len(largest) // 2] ^= 1
    return bytes(content)


def test_what_is_no_artefact_is_refused_in_one_line(tmp_path, onnx_path, pt2_path) -> None:
    whole = pt2_path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(damaged) // 3] ^= 1
    plain = onnx.load(onnx_path)
    del plain.metadata_props[:]
    onnx.save(plain, tmp_path / "foreign.onnx")
    for name, content, reason in (
        ("checkpoint.pt", b"", "is no artefact; expected a file of `segda export`"),
        ("absent.onnx", None, "no artefact at"),
        ("absent.pt2", None, "no artefact at"),
        ("empty.onnx", b"", "cannot be used"),
        ("noise.onnx", b"noise" * 100, "cannot be used"),
        ("turned.onnx", turned(onnx_path), "cannot be used: its weights are not those that were written"),
        ("short.onnx", onnx_path.read_bytes()[:-2000], "cannot be used"),
        ("noise.pt2", b"noise" * 100, "cannot be used"),
        ("short.pt2", whole[:-2000], "cannot be used"),
        ("damaged.pt2", bytes(damaged), "cannot be used"),
        ("foreign.onnx", (tmp_path / "foreign.onnx").read_bytes(), "was not written by `segda export`"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(WeightsError, match=reason) as refused:
            load_artefact(path)
        assert "\n" not in str(refused.value)


class _Evil:
    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


@pytest.mark.parametrize(
    "entry", ["data/sample_inputs/model.pt", "data/weights/weight_0", "models/../x.so", "data/aotinductor/a.so"]
)
def test_a_program_with_something_to_run_is_refused_before_it_runs(pt2_path, tmp_path, entry) -> None:
    changed, content = tmp_path / "evil.pt2", io.BytesIO()
    torch.save(_Evil(), content)
    with zipfile.ZipFile(pt2_path) as source, zipfile.ZipFile(changed, "w") as target:
        root = source.namelist()[0].partition("/")[0]
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("model_weights_config.json") and "weight_0" in entry:
                config = json.loads(data)
                next(iter(config["config"].values()))["use_pickle"] = True
                data = json.dumps(config).encode()
            target.writestr(name, content.getvalue() if name == f"{root}/{entry}" else data)
        if f"{root}/{entry}" not in source.namelist():
            target.writestr(f"{root}/{entry}", content.getvalue())
    with pytest.raises(ValueError, match="it holds no program that can be read here"):
        read_program(changed)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(onnx_path) -> None:
    with pytest.raises(DeviceError):
        load_artefact(onnx_path, device="cuda")
