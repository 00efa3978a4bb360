import platform
import shutil

import onnx
import pytest
import torch
from torch import nn

from segda.cli.profile import profile_command
from segda.deployment import RUNTIMES, Accepts, ShippedNetwork, build_runtime
from segda.deployment.int8 import count_convolutions, quantize
from segda.deployment.onnx_file import write_onnx
from segda.deployment.program import capture
from segda.efficiency import measure_runtime_latency, profile_segmenter
from segda.errors import ConfigError, ExportError, UnknownNameError

from .tiny import Tiny, build, images

COMPILES = shutil.which("g++") is not None
X86 = platform.machine() in ("x86_64", "AMD64")
SIZE = (40, 48)


def share(one, other) -> float:
    return float((one == other).float().mean())


@pytest.mark.parametrize(
    ("runtime", "precision", "least"),
    [
        ("eager", "fp32", 1.0),
        ("eager", "bf16", 0.97),
        ("onnxruntime", "fp32", 0.9999),
        ("onnxruntime", "fp16", 0.99),
        ("onnxruntime", "int8", 0.95),
        pytest.param(
            "torch_compile",
            "fp32",
            0.9999,
            marks=[pytest.mark.slow, pytest.mark.skipif(not COMPILES, reason="Inductor needs a compiler for C++")],
        ),
        pytest.param(
            "pt2e",
            "int8",
            0.95,
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(not (COMPILES and X86), reason="needs a compiler for C++, and x86"),
            ],
        ),
    ],
)
def test_every_runtime_says_what_the_network_says(tiny, runtime, precision, least) -> None:
    image = images(1, *SIZE)

    made = build_runtime(
        tiny, runtime=runtime, precision=precision, size=SIZE, calibration=list(images(4, *SIZE)), argmax="full"
    )
    classes = made(image)

    assert (made.name, made.precision, made.accepts) == (runtime, precision, Accepts(1, SIZE))
    assert classes.dtype == torch.uint8
    assert share(classes, ShippedNetwork(tiny)(image)) >= least
    if precision == "int8":
        # PT2E's quantizer passes over convolutions of a class of their own, which all but the head's are.
        assert made.notes["convolutions in int8"] == 4
        assert made.notes["convolutions in single precision"] == 0
    timed = measure_runtime_latency(made, input_shape=(1, 3, *SIZE), warmup=1, runs=5)
    assert (timed.runs, timed.threads) == (5, torch.get_num_threads())
    with pytest.raises(ConfigError, match="expected images uint8"):
        made(images(1, 64, 64))


def test_int8_says_how_many_convolutions_it_has(tiny) -> None:
    made = build_runtime(tiny, runtime="onnxruntime", precision="int8", calibration=list(images(2, *SIZE)))
    single = build_runtime(tiny, runtime="onnxruntime")
    assert made.notes["convolutions in int8"] == 4
    assert made.notes["convolutions in single precision"] == 0
    assert made.notes["file_bytes"] < single.notes["file_bytes"] + 30_000  # scales weigh more than so few weights
    assert made(images(1, 33, 65)).shape == (1, 33, 65)


def test_int8_of_which_little_would_compute_in_int8_is_refused(tiny, tmp_path, monkeypatch) -> None:
    from onnxruntime import quantization

    path, small = tmp_path / "tiny.onnx", tmp_path / "small.onnx"
    write_onnx(capture(ShippedNetwork(tiny), Accepts()), path, accepts=Accepts(), metadata={})
    assert count_convolutions(path) == (0, 4)
    original = quantization.quantize_static
    monkeypatch.setattr(
        quantization,
        "quantize_static",
        lambda *args, **kwargs: original(*args, op_types_to_quantize=["Add"], **kwargs),
    )
    with pytest.raises(ExportError, match="only 0 of 4 convolutions would compute in int8"):
        quantize(path, small, images=list(images(2, *SIZE)), accepts=Accepts())


def test_metadata_survive_quantization(tiny, tmp_path) -> None:
    path, small = tmp_path / "tiny.onnx", tmp_path / "small.onnx"
    write_onnx(capture(ShippedNetwork(tiny), Accepts()), path, accepts=Accepts(), metadata={"network": "tiny"})
    quantize(path, small, images=list(images(2, *SIZE)), accepts=Accepts())
    assert {"network": "tiny"}.items() <= {entry.key: entry.value for entry in onnx.load(small).metadata_props}.items()


@pytest.mark.parametrize("runtime", [name for name, kind in RUNTIMES.items() if "int8" in kind.precisions])
def test_int8_without_images_is_refused(tiny, runtime) -> None:
    with pytest.raises(ConfigError, match="int8 needs images to calibrate with"):
        build_runtime(tiny, runtime=runtime, precision="int8", size=SIZE)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"runtime": "onnx"}, UnknownNameError, "unknown runtime 'onnx'"),
        # ONNX Runtime has no convolution in bfloat16, and would say so when the file is opened.
        (
            {"runtime": "onnxruntime", "precision": "bf16"},
            ConfigError,
            "knows precision fp32 or fp16 or int8, got bf16",
        ),
        ({"runtime": "eager", "precision": "int8"}, ConfigError, "knows precision fp32 or bf16 or fp16, got int8"),
        ({"runtime": "pt2e", "precision": "fp32"}, ConfigError, "knows precision int8, got fp32"),
        ({"runtime": "torch_compile"}, ConfigError, "compiles for one size"),
        ({"runtime": "pt2e", "precision": "int8", "size": SIZE, "batch": None}, ConfigError, "compiles for one size"),
    ],
)
def test_what_a_runtime_does_not_do_is_refused_in_one_line(tiny, options, error, message) -> None:
    with pytest.raises(error, match=message) as refused:
        build_runtime(tiny, calibration=list(images(1, *SIZE)), **options)
    assert "\n" not in str(refused.value)


@pytest.mark.slow  # compiles
@pytest.mark.skipif(not (COMPILES and X86), reason="needs a compiler for C++, and x86")
def test_pt2e_quantizes_a_residual_block_with_one_relu_in_place() -> None:
    """By the classes of modules its quantizer says that a partition has more than one output."""

    class Block(Tiny):
        def __init__(self, config=None, *, num_classes=4) -> None:
            super().__init__(config, num_classes=num_classes)
            self.relu = nn.ReLU(inplace=True)
            self.conv = nn.Conv2d(16, 16, 3, padding=1)

        def between(self, features):
            out = self.relu(self.conv(features))
            out += features
            return self.relu(out)

    network, image = build(Block), images(1, *SIZE)
    made = build_runtime(network, runtime="pt2e", precision="int8", size=SIZE, calibration=list(images(4, *SIZE)))
    assert made.notes["convolutions in int8"] == 5
    assert share(made(image), ShippedNetwork(network)(image)) >= 0.95


def test_threads_that_have_changed_since_are_noticed(tiny) -> None:
    made = build_runtime(tiny, runtime="eager", size=SIZE)
    torch.set_num_threads(2)
    with pytest.raises(ConfigError, match="built when PyTorch had 1 threads, and now it has 2"):
        measure_runtime_latency(made, input_shape=(1, 3, *SIZE), warmup=1, runs=1)


def test_a_profile_says_what_ran_the_network(tiny) -> None:
    profile = profile_segmenter(
        tiny, input_shape=(1, 3, *SIZE), runtime="onnxruntime", precision="int8", warmup=1, runs=5
    )
    assert profile.conditions["runtime"] == "onnxruntime"
    assert profile.conditions["convolutions in int8"] == 4
    assert str(profile.conditions["measured"]).startswith("from bytes to class map")
    assert "peak_memory_bytes" not in profile.metrics()
    with pytest.raises(ConfigError, match="needs a runtime that knows it: onnxruntime or pt2e"):
        profile_segmenter(tiny, input_shape=(1, 3, *SIZE), precision="int8")


def test_the_command_line_knows_every_runtime_and_precision() -> None:
    choices = {parameter.name: getattr(parameter.type, "choices", None) for parameter in profile_command.params}
    assert list(choices["runtime"]) == list(RUNTIMES)
    assert set(choices["precision"]) == {"auto"} | {name for kind in RUNTIMES.values() for name in kind.precisions}
