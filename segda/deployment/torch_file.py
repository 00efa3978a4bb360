"""Files of `torch.export` (.pt2): written from a program, and read without running anything that they bring along."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segda.deployment.program import first_line, quiet
from segda.torch_files import verify_torch_file

if TYPE_CHECKING:
    from torch.export import ExportedProgram  # takes half a second to import

_METADATA = "segda.json"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_FOLDERS = ("models/", "data/weights/", "data/constants/", "data/sample_inputs/", "extra/", ".data/")
_FILES = ("archive_format", "archive_version", "byteorder", "version")


def write_program(program: "ExportedProgram", path: Path, *, metadata: Mapping[str, str]) -> None:
    """Write a program, weights included.

    Args:
        program: what `capture` returned.
        path: the file to write.
        metadata: texts that the file carries.
    """
    content = io.BytesIO()  # PyTorch would object to the name of a file in the making
    with quiet():
        torch.export.save(program, content, extra_files={_METADATA: json.dumps(dict(metadata))})
    path.write_bytes(content.getbuffer())


def read_program(path: Path) -> "tuple[ExportedProgram, dict[str, str]]":
    """Read what `write_program` wrote.

    Args:
        path: the file.

    Returns:
        The program on the CPU, and its metadata; empty where it has none of ours.

    Raises:
        OSError: the file is missing or cannot be opened.
        ValueError: its bytes are not those that were written, or it is something else than a program with its tensors.
    """
    verify_torch_file(path)
    texts = {_METADATA: ""}
    try:
        _refuse_code(path)
        with quiet():
            program = torch.export.load(path, extra_files=texts)
        return program, json.loads(texts[_METADATA] or "{}")
    except Exception as error:  # what is no program makes its reader raise nearly anything
        raise ValueError(f"it holds no program that can be read here ({first_line(error)})") from error


def on_device(program: "ExportedProgram", device: torch.device) -> "ExportedProgram":
    """Return a program that was read, for another device if need be."""
    if device.type == "cpu":
        return program
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, device)


def _refuse_code(path: Path) -> None:
    """Refuse files of which PyTorch would run or unpickle something: it trusts whoever made them."""
    with zipfile.ZipFile(path) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]  # without the folder that holds all
        known = all(name.startswith(_FOLDERS) or name in _FILES for name in names)
        configs = [name for name in archive.namelist() if name.endswith(_CONFIGS)]
        tables = [json.loads(archive.read(name))["config"].values() for name in configs]
        pickled = [entry for table in tables for entry in table if entry.get("use_pickle")]
        custom = [name for name in names if "custom_obj" in name]
        if not known or len(configs) != len(_CONFIGS) or pickled or custom:
            raise ValueError("it holds other things than a program and its tensors")
        for name in archive.namelist():
            if "/sample_inputs/" in name:  # PyTorch would read it without these limits where they do not let it
                torch.load(io.BytesIO(archive.read(name)), weights_only=True)
