"""Trunks of the package timm, which is an extra: most of this file needs it, and says so where it is missing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from segda.config import NetworkConfig
from segda.environment import describe_guests
from segda.errors import ConfigError, GuestError, UnknownNameError, WeightsError
from segda.models import build_segmenter
from segda.models.bisenet_v1 import BiSeNetV1
from segda.models.trunks import BACKBONES, build_trunk, timm_features
from segda.models.trunks.base import IMAGENET, Renormalize
from segda.models.trunks.pretrained import load_imagenet_weights
from segda.models.trunks.resnet import resnet18
from segda.testing.models import check_segmenter


def _why_not() -> str | None:
    try:
        import timm  # noqa: F401
    except Exception as error:  # without its torchvision the import raises what torch says of missing operators
        return f"timm cannot be imported ({type(error).__name__}); it comes with the extra `timm`"
    return None


_MISSING = _why_not()
needs_timm = pytest.mark.skipif(_MISSING is not None, reason=_MISSING or "")


def importing(error: Exception) -> Callable[[str], object]:
    def fail(name: str) -> object:
        assert name == "timm"
        raise error

    return fail


def test_without_timm_a_configuration_that_names_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    timm_features.timm_family.cache_clear()
    missing = ModuleNotFoundError("No module named 'timm'", name="timm")
    monkeypatch.setattr(timm_features.importlib, "import_module", importing(missing))
    with pytest.raises(
        ValidationError, match=r"'timm/resnet26d' needs the package timm, .* `pip install 'segda\[timm\]'`"
    ):
        BiSeNetV1.Config(backbone="timm/resnet26d")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("operator torchvision::nms does not exist"),
        ModuleNotFoundError("No module named 'torchvision'", name="torchvision"),
    ],
)
def test_without_its_torchvision_it_says_which_one(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    timm_features.timm_family.cache_clear()
    monkeypatch.setattr(timm_features.importlib, "import_module", importing(error))
    with pytest.raises(GuestError) as caught:
        BACKBONES["timm/resnet26d"]
    message = str(caught.value)
    assert str(error) in message
    assert f"a torchvision that was built for torch {torch.__version__}" in message
    assert "\n" not in message


def test_nobody_else_imports_timm() -> None:
    code = "import sys, segda, segda.models; segda.models.trunks.BACKBONES['resnet18'](); print('timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_an_unknown_backbone_is_told_of_the_family() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown backbone 'tim/resnet18'.*, timm/NAME"):
        BACKBONES["tim/resnet18"]


@needs_timm
@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto"])
def test_a_network_on_it_keeps_the_contract(name: str) -> None:
    check_segmenter(BiSeNetV1, BiSeNetV1.Config(backbone=f"timm/{name}", pretrained="none"))


@needs_timm
@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 33), (33, 47)])
def test_features_come_at_three_scales_rounded_up(height: int, width: int) -> None:
    with torch.device("meta"):
        trunk = build_trunk("timm/convnext_atto")
        levels = trunk(torch.empty(2, 3, height, width, device="meta"))

    sizes = [(-(-height // scale), -(-width // scale)) for scale in (8, 16, 32)]
    assert [tuple(level.shape) for level in levels] == [
        (2, channels, *size) for channels, size in zip(trunk.channels, sizes, strict=True)
    ]


@needs_timm
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_the_whole_model_gives_the_features_of_our_own_trunk(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(0)
    own = resnet18().eval()
    for module in own.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
    # timm's ResNet-18 has torchvision's names, which ours has too; the classifier is left out.
    state = own.state_dict() | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, file)
    else:
        from safetensors.torch import save_file

        save_file(state, file)
    config = BiSeNetV1.Config(backbone="timm/resnet18", weights_file=file)

    trunk = build_segmenter(config, num_classes=3).backbone.eval()

    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for came, expected in zip(trunk(image), own(image), strict=True):
            assert expected.abs().max() > 0.1
            torch.testing.assert_close(came, expected)


@needs_timm
def test_a_file_of_another_model_is_refused_in_one_line(tmp_path: Path) -> None:
    torch.save(
        {name: value for name, value in resnet18().state_dict().items() if "layer3" not in name}, tmp_path / "x.pth"
    )
    trunk = build_trunk("timm/resnet18")
    before = {name: value.clone() for name, value in trunk.state_dict().items()}

    with pytest.raises(
        WeightsError, match=r"x\.pth does not fit the trunk: .*give the weights of the backbone"
    ) as caught:
        load_imagenet_weights(trunk, name="timm/resnet18", pretrained="imagenet", weights_file=tmp_path / "x.pth")

    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


@needs_timm
def test_weights_are_taken_from_the_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []

    def cached(repository: str, file: str) -> str | None:
        asked.append((repository, file))
        return found.get(file)

    found: dict[str, str] = {}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("nothing may be downloaded"))
    trunk = build_trunk("timm/resnet18")
    with pytest.raises(
        WeightsError, match=r"nothing is downloaded .* `hf download timm/resnet18\.\w+ model\.safetensors`"
    ):
        load_imagenet_weights(trunk, name="timm/resnet18", pretrained="imagenet")
    assert [file for _, file in asked] == ["model.safetensors", "pytorch_model.bin"]

    state = resnet18().state_dict() | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "pytorch_model.bin")
    found["pytorch_model.bin"] = str(tmp_path / "pytorch_model.bin")
    load_imagenet_weights(trunk, name="timm/resnet18", pretrained="imagenet")
    assert torch.equal(trunk.state_dict()["network.layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])


@needs_timm
def test_images_are_normalized_as_the_model_wants_them() -> None:
    same = build_segmenter(BiSeNetV1.Config(backbone="timm/resnet10t"), num_classes=3, pretrained=False)
    other = build_segmenter(BiSeNetV1.Config(backbone="timm/tf_efficientnet_lite0"), num_classes=3, pretrained=False)

    assert same.backbone.normalization == IMAGENET
    assert isinstance(same.trunk_input, torch.nn.Identity)
    assert other.backbone.normalization == ((127.5,) * 3, (127.5,) * 3)
    assert isinstance(other.trunk_input, Renormalize)
    pixels = torch.full((1, 3, 2, 2), 200.0)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in IMAGENET)
    torch.testing.assert_close(other.trunk_input((pixels - mean) / std), (pixels - 127.5) / 127.5)


@needs_timm
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_tiny_patch16_224", r"has features at 1/16; a trunk needs them at 1/8, 1/16 and 1/32"),
        ("swin_tiny_patch4_window7_224", r"cannot be a trunk for images of any size"),
    ],
)
def test_models_that_are_no_trunks_are_refused(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_trunk(f"timm/{name}")


@needs_timm
def test_an_unknown_model_is_told_with_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match=r"timm [\d.]+ has no model 'resnet1' \(did you mean 'resnet\w+'\?\)"):
        BACKBONES["timm/resnet1"]


@needs_timm
def test_its_version_is_noted_with_what_is_not_ours_and_it_has_no_width() -> None:
    import timm

    config = BiSeNetV1.Config(backbone="timm/resnet10t")
    noted = describe_guests(NetworkConfig(model=config))
    assert noted["guest/timm/resnet10t/package"] == f"timm {timm.__version__}"
    with pytest.raises(ValidationError, match=r"timm/resnet10t cannot be scaled"):
        BiSeNetV1.Config(backbone="timm/resnet10t", width=0.5)


@needs_timm
@pytest.mark.filterwarnings("ignore")  # of the exporter's
def test_a_file_in_onnx_takes_other_sizes_than_its_examples(tmp_path: Path) -> None:
    # ONNX divides negative numbers in another way than Python: sizes that are rounded up with them come out wrong without an error.
    pytest.importorskip("onnxscript", reason="the exporter needs onnxscript")
    runtime = pytest.importorskip("onnxruntime", reason="the file is run by onnxruntime")
    trunk = build_trunk("timm/resnet10t").eval()
    sizes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    file = tmp_path / "trunk.onnx"
    torch.onnx.export(trunk, (torch.randn(1, 3, 64, 96),), file, dynamo=True, dynamic_shapes=(sizes,), verbose=False)
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])

    image = torch.randn(1, 3, 65, 141)
    with torch.no_grad():
        expected = trunk(image)
    for came, wanted in zip(session.run(None, {session.get_inputs()[0].name: image.numpy()}), expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(came), wanted, rtol=1e-4, atol=1e-4)


@needs_timm
def test_an_exported_program_takes_other_sizes_than_its_examples() -> None:
    trunk = build_trunk("timm/resnet10t").eval()
    sizes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(trunk, (torch.randn(1, 3, 64, 96),), dynamic_shapes=(sizes,)).module()

    image = torch.randn(1, 3, 75, 333)
    with torch.no_grad():
        for came, expected in zip(program(image), trunk(image), strict=True):
            torch.testing.assert_close(came, expected)
