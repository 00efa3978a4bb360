"""What is made of a checkpoint: in which arithmetic, with how many of its channels, for which runtime."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from segda.errors import ConfigError
from segda.exporting import FilePrecision
from sweeps.file.parts import DeployConfig

ROUND_TO = 8  # widths of slimmed networks: kernels are fast at multiples of it
RuntimeName = Literal["onnxruntime", "eager", "torch_compile"]
_USUAL = DeployConfig(runtime="onnxruntime")
# int8 of ONNX Runtime is for processors; half precision is emulated there, and slower than single.
_ONNX: dict[str, tuple[FilePrecision, ...]] = {"cpu": ("fp32", "int8"), "cuda": ("fp32", "fp16")}


@dataclass(frozen=True)
class Recipe:
    """How an artefact is made of a checkpoint.

    Attributes:
        precision: arithmetic of its convolutions.
        ratio: share of the channels that are taken out first; None: it keeps all.
    """

    precision: FilePrecision
    ratio: float | None = None

    def __str__(self) -> str:
        return self.precision if self.ratio is None else f"slim{100 * self.ratio:g}-{self.precision}"

    @property
    def words(self) -> str:
        """For people.

        Example:
            >>> Recipe("int8", 0.3).words
            'int8, 30 % of the channels taken out'
        """
        return self.precision + ("" if self.ratio is None else f", {100 * self.ratio:g} % of the channels taken out")


def runtime_of(deploy: DeployConfig | None) -> RuntimeName:
    """Return what runs the artefacts of a sweep, ONNX Runtime unless its file says otherwise.

    Args:
        deploy: of the sweep file.

    Raises:
        ConfigError: it runs no file.
    """
    runtime = (deploy or _USUAL).runtime
    if runtime == "pt2e":
        raise ConfigError(
            "the sweep's deploy.runtime is pt2e, which compiles for the machine that it runs on and leaves no file; "
            "use segda.deployment.build_runtime on the checkpoint of the picked trial, or `segda export --precision int8`"
        )
    return runtime


def recipes(deploy: DeployConfig | None, *, device: str, ratios: Iterable[float]) -> Iterator[Recipe]:
    """Yield the recipes that make sense on a device.

    Args:
        deploy: of the sweep file; what precision it names is among them.
        device: kind of the device, `cpu` or `cuda`.
        ratios: shares of the channels to take out, beside none.
    """
    for ratio in (None, *ratios):
        yield from (Recipe(precision, ratio) for precision in _precisions(deploy or _USUAL, device))


def _precisions(deploy: DeployConfig, device: str) -> Iterator[FilePrecision]:
    if deploy.runtime != "onnxruntime":
        yield "fp32"  # the only one that a program of torch.export is written in
        return
    yield from _ONNX[device]
    if deploy.precision != "bf16" and deploy.precision not in _ONNX[device]:
        yield deploy.precision
