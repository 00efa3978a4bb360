"""Costs of several networks beside each other, by the command line and from Python."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import segda as package
from segda import cost_comparison
from segda.cli.actions import profile
from segda.cost_comparison import CostComparison, NetworkCost, compare_costs
from segda.cost_picture import draw_costs
from segda.deployment.onnx_file import save_sealed
from segda.efficiency import Latency, count_macs, count_parameters
from segda.errors import ConfigError
from segda.exporting import export
from segda.models import MODELS, ModelConfig, build_segmenter

from .deployment.tiny import Tiny

SIDE = 64  # pixels: the size of the shared run
FAST_SCNN = MODELS["fast_scnn"].Config(name="fast_scnn")
IDLE = Latency(
    median_ms=10.0, p90_ms=11.0, p95_ms=11.5, p99_ms=12.0, iqr_ms=0.4, spread=0.02, runs=100, warmup=20, threads=1
)


@pytest.fixture(autouse=True)
def _soon(monkeypatch) -> None:
    """Measure long enough for a figure, and not for one that others could rely on."""
    monkeypatch.setattr(cost_comparison, "STEADY_SECONDS", 0.2)


@pytest.fixture
def tiny(monkeypatch) -> ModelConfig:
    """A network of four convolutions, by the name `tiny`: what takes time is writing files of networks."""
    monkeypatch.setitem(MODELS._built_in, "tiny", Tiny)
    return ModelConfig(name="tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("costs")


@pytest.fixture(scope="module")
def onnx_file(trained, folder) -> Path:
    """The shared run as a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGDA_CACHE", str(trained.cache))
        export(trained.checkpoint, folder / "street.onnx", images=1, data_roots={"loveda": trained.root})
    return folder / "street.onnx"


@pytest.fixture
def shown(monkeypatch, segda) -> Callable[..., str]:
    """Return what the command prints of given costs."""

    def show(*costs: NetworkCost) -> str:
        found = CostComparison(costs, {"threads": 1})
        monkeypatch.setattr(profile, "compare_costs", lambda networks, **options: found)
        code, output, errors = segda("profile", "--model", "stdc", "--classes", 2, "--height", 64, "--width", 64)
        assert (code, errors) == (0, "")
        return output

    return show


def cost(name: str, **other) -> NetworkCost:
    known = {"network": name, "num_classes": 7, "num_parameters": 2_500_000, "macs": 3 * 10**9, "whole": IDLE}
    places = {"device": "cpu", "runtime": "eager", "precision": "fp32", "input_shape": (1, 3, SIDE, SIDE), "notes": {}}
    absent = dict.fromkeys(("alone", "peak_memory_bytes", "file_bytes"))
    return NetworkCost(**{"name": name, **known, **places, **absent, **other})


def row(output: str, name: str) -> list[str]:
    line = next(line for line in output.splitlines() if line.startswith(f"│ {name} "))
    return [cell.strip() for cell in line.split("│")[2:-1]]


def test_configuration_checkpoint_file_and_network_stand_in_one_table(segda, trained, onnx_file, tmp_path) -> None:
    files = [trained.config, trained.checkpoint, onnx_file]
    words = ["--model", "fast_scnn", "--precision", "fp32", "--device", "cpu", "--runs", 5]
    written = ["--json", tmp_path / "costs.json", "--plot", tmp_path / "costs.png"]

    code, output, errors = segda("profile", *files, *words, *written)

    assert (code, errors) == (0, "")
    found = json.loads((tmp_path / "costs.json").read_text())
    assert [each["name"] for each in found["networks"]] == [*map(str, files), "fast_scnn"]
    config, checkpoint, file, named = found["networks"]
    costs = ("num_parameters", "macs", "num_classes", "input_shape", "network")
    assert [config[name] for name in costs] == [checkpoint[name] for name in costs] == [file[name] for name in costs]
    assert (named["num_classes"], named["input_shape"]) == (7, [1, 3, SIDE, SIDE])
    network = build_segmenter(FAST_SCNN, num_classes=7, pretrained=False)
    assert named["num_parameters"] == count_parameters(network)
    assert named["macs"] == count_macs(network, input_shape=(1, 3, SIDE, SIDE))
    assert [each["file_bytes"] for each in found["networks"]] == [
        None,
        trained.checkpoint.stat().st_size,
        onnx_file.stat().st_size,
        None,
    ]
    assert [each["runtime"] for each in found["networks"]] == ["eager", "eager", "onnxruntime", "eager"]
    assert [each["alone"] is None for each in found["networks"]] == [False, False, True, False]
    assert [each["peak_memory_bytes"] is None for each in found["networks"]] == [False, False, True, False]
    assert file["notes"] == {"network alone": "not measured: enlargement and argmax are inside of the file"}
    for each in found["networks"]:
        whole = each["whole"]
        assert 0 < whole["median_ms"] <= whole["p90_ms"] <= whole["p95_ms"] <= whole["p99_ms"]
        assert each["fps"] == pytest.approx(1000 / whole["median_ms"])
        assert whole["is_reliable"] == (not whole["doubts"])
        shown = row(output, each["name"])
        assert shown[0] == f"{each['num_parameters'] / 1e6:.2f}"
        assert shown[2].removeprefix("~").startswith(f"{whole['median_ms']:.2f} / ")
        assert (shown[3] == "-") == (each["alone"] is None)
    assert found["conditions"]["threads"] == 1
    assert np.asarray(Image.open(tmp_path / "costs.png")).std() > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["costs.json", "costs.png"]


def test_one_network_is_shown_in_detail_and_json_can_take_the_place_of_the_table(segda, tiny) -> None:
    words = ["--model", "tiny", "--classes", 4, "--height", 32, "--width", 64, "--device", "cpu", "--runs", 5]
    code, output, _ = segda("profile", *words, "--precision", "fp32", "--runtime", "onnxruntime")
    assert code == 0
    assert row(output, "latency, 99th percentile")[0].endswith(" ms")
    assert row(output, "computed by")[0] == "cpu, onnxruntime, fp32"
    assert row(output, "peak memory")[0] == "-"

    code, output, _ = segda("profile", *words, "--json", "-")
    assert code == 0
    (only,) = json.loads(output)["networks"]
    assert (only["input_shape"], only["num_classes"], only["whole"]["runs"]) == ([1, 3, 32, 64], 4, 5)


def test_int8_is_what_a_runtime_that_knows_nothing_else_computes_in(tiny) -> None:
    (only,) = compare_costs(
        [tiny], num_classes=4, height=64, width=64, runtime="onnxruntime", precision="int8", runs=5, warmup=1
    ).costs
    assert only.precision == "int8"
    assert only.alone is not None
    assert only.notes["convolutions in int8"] == 4


def test_what_a_file_of_something_that_is_not_here_costs_is_not_invented(trained, onnx_file, tmp_path) -> None:
    model = onnx.load(onnx_file)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    texts["config"] = json.dumps({**json.loads(texts["config"]), "model": {"name": "of_somebody_else"}})
    onnx.helper.set_model_props(model, texts)
    save_sealed(model, tmp_path / "foreign.onnx")

    found = compare_costs([tmp_path / "foreign.onnx", FAST_SCNN], device="cpu", runs=5, warmup=1)

    foreign, own = found.costs
    assert (foreign.num_parameters, foreign.macs, foreign.alone) == (None, None, None)
    assert foreign.notes["parameters"] == "not known: its network cannot be built here"
    assert foreign.whole.median_ms > 0
    assert (own.num_classes, own.input_shape) == (7, (1, 3, SIDE, SIDE))
    with pytest.raises(ConfigError, match=r"nothing to draw .*foreign\.onnx against"):
        draw_costs(CostComparison((*found.costs, cost("other")), {}), tmp_path / "costs.png")
    assert not (tmp_path / "costs.png").exists()


def test_figures_of_a_device_that_was_not_idle_are_marked_and_it_is_said_why(shown) -> None:
    busy = replace(IDLE, doubts=("others used 1.0 of 2 processors meanwhile: train (process 7)",))
    output = shown(cost("first", whole=busy, alone=busy), cost("second", whole=busy))
    assert row(output, "first")[2:5] == ["~10.00 / 11.00 / 12.00", "~10.00 / 11.00 / 12.00", "~100.0"]
    assert (
        output.count("~ latency is not reliable: others used 1.0 of 2 processors meanwhile: train (process 7)\n") == 1
    )

    output = shown(cost("only", whole=busy))
    assert row(output, "latency, median")[0] == "~10.00 ms"
    assert "~ latency is not reliable: others used 1.0 of 2" in output


def test_a_doubt_about_one_row_names_it_and_marks_no_other(shown) -> None:
    apart = replace(IDLE, doubts=("the median is 12 ms, that of the fastest of 10 blocks of runs 8 ms",))
    output = shown(cost("first"), cost("second", alone=apart))
    assert row(output, "first")[2] == row(output, "second")[2] == "10.00 / 11.00 / 12.00"
    assert row(output, "second")[3].startswith("~")
    assert "~ latency is not reliable of second, network alone: the median is 12 ms" in output
    assert "~" not in shown(cost("first"), cost("second"))


def test_images_of_different_sizes_are_told(shown) -> None:
    output = shown(cost("first"), cost("second", input_shape=(1, 3, 32, 32)))
    assert row(output, "second")[-1] == "1x3x32x32"
    assert "images of different sizes were shown" in output
    assert "different sizes" not in shown(cost("first"), cost("second"))


def test_figures_are_whole_where_a_terminal_is_narrow(shown, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    output = shown(cost("runs/a_long_name/checkpoint.pt"), cost("[red]", macs=None, num_parameters=None))
    assert row(output, "runs/a_long_name/checkpoint.pt")[:3] == ["2.50", "3.00", "10.00 / 11.00 / 12.00"]
    assert row(output, "[red]")[:2] == ["-", "-"]
    assert "…" not in output


def test_images_per_second_count_all_images_of_a_batch() -> None:
    assert cost("four", input_shape=(4, 3, SIDE, SIDE)).fps == pytest.approx(400)


def test_a_picture_falls_back_to_sizes_of_files(tmp_path) -> None:
    costs = [cost(name, macs=None, file_bytes=10**6 * size) for name, size in (("a", 1), ("b", 1), ("c", 1))]
    draw_costs(CostComparison(tuple(costs), {}), tmp_path / "costs.png")
    assert np.asarray(Image.open(tmp_path / "costs.png")).std() > 0


def _set_without_anything_to_set(trained, onnx_file):
    return [trained.checkpoint, onnx_file, "model.backbone=resnet34"]


def _unknown_network(trained, onnx_file):
    return [trained.config, "--model", "nothing_of_this_name"]


def _picture_of_another_kind(trained, onnx_file):
    return [trained.config, "--plot", onnx_file.parent / "costs.jpg"]


def _int8_without_a_runtime(trained, onnx_file):
    return [trained.config, "--precision", "int8"]


def _no_artefact(trained, onnx_file):
    path = onnx_file.parent / "damaged.onnx"
    path.write_bytes(b"no file of anything")
    return [path]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (_set_without_anything_to_set, "KEY=VALUE changes configurations and --model, and there is neither"),
        (_unknown_network, "unknown network 'nothing_of_this_name'"),
        (_picture_of_another_kind, "ends in .png, got "),
        (_int8_without_a_runtime, "precision int8 needs a runtime that knows it: onnxruntime or pt2e"),
        (_no_artefact, "damaged.onnx cannot be used"),
    ],
)
def test_a_mistake_is_told_in_one_line(segda, trained, onnx_file, words, message) -> None:
    code, output, errors = segda("profile", *words(trained, onnx_file))
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert message in errors


@pytest.mark.parametrize(
    ("networks", "options", "message"),
    [
        ([], {}, "there is nothing to measure"),
        ([FAST_SCNN], {"num_classes": 4}, "give height and width"),
        ([FAST_SCNN], {"height": 64, "width": 64}, "give num_classes"),
    ],
)
def test_what_nobody_says_is_asked_for(networks, options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        compare_costs(networks, **options)


def test_notebooks_have_it() -> None:
    assert package.compare_costs is compare_costs
