"""What a result was computed with: versions, code and hardware."""

import functools
import hashlib
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch
from pydantic import BaseModel

from segda.named import guests_in

_PACKAGES = (
    "segda",
    "torch",
    "numpy",
    "albumentations",
    "opencv-python-headless",
    "rasterio",
    "ray",
    "optuna",
    "mlflow",
)


def describe_environment(device: torch.device | None = None) -> dict[str, str | int | bool | None]:
    """Describe the software and the machine of this process.

    Args:
        device: the device in use; by default the GPU if there is one.

    Returns:
        Flat name -> value: `version/<package>`, `python`, `platform`, `git_commit` (None outside a checkout), `git_dirty`,
        `device`, `device_name`, `cpu_count` and `num_threads`, those that this process computes with.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    described: dict[str, str | int | bool | None] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": device_name(device),
        "cpu_count": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }
    for package in _PACKAGES:
        try:
            described[f"version/{package}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            described[f"version/{package}"] = None
    if torch.version.cuda is not None:
        described["version/cuda"] = torch.version.cuda
    return described


def describe_guests(config: BaseModel) -> dict[str, str | None]:
    """Describe what a configuration names and that does not belong to this library.

    Args:
        config: any configuration.

    Returns:
        Flat name -> value: `guest/<name>/module`, `guest/<name>/sha256` of the module's file when it was imported (None without a
        file), and `guest/<name>/package` with name and version (None for what was named by a dotted name).
    """
    return {
        f"guest/{guest.name}/{key}": value
        for guest in guests_in(config)
        for key, value in (("module", guest.module), ("package", guest.package), ("sha256", guest.sha256))
    }


def code_fingerprint(config: BaseModel) -> str:
    """Return a hash of the code that computes a run, 16 hexadecimal digits: of this library, of torch, and of what is not ours.

    Equal for installations that compute the same thing from the same configuration and data.

    Args:
        config: the run.
    """
    guests = describe_guests(config)
    if not guests:
        return _own_fingerprint()
    text = json.dumps([_own_fingerprint(), guests], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def _own_fingerprint() -> str:
    """Return a hash of this library's sources and of the torch that computes, 16 hexadecimal digits."""
    digest = hashlib.sha256(torch.__version__.encode())
    root = Path(__file__).parent
    # Command lines do not compute results.
    for path in sorted(path for path in root.rglob("*.py") if "cli" not in path.relative_to(root).parts):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def device_name(device: torch.device) -> str:
    """Return the maker's name of a device, e.g. of the GPU or the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    """Ask git about the checkout that this code runs from, if it is one."""
    try:
        run = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    inside = Path(__file__).resolve().parents[1] / ".git"
    return run.stdout.strip() if run.returncode == 0 and inside.exists() else None
