"""What the packages export."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import segda
import sweeps

PACKAGES = (segda, sweeps)


def _homes(package):
    """Return exported name -> module as type checkers read it."""
    tree = ast.parse(Path(package.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {alias.name: node.module for node in block.body for alias in node.names}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_type_checkers_and_python_know_the_same_names_from_the_same_modules(package):
    homes = _homes(package)
    assert sorted(homes) == sorted(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    for name, module in homes.items():
        __import__(module)
        assert getattr(package, name) is getattr(sys.modules[module], name)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_no_module_is_called_what_the_package_exports(package):
    folder = Path(package.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert not modules & set(package.__all__)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_importing_the_package_imports_nothing_that_takes_time(package):
    heavy = "{'torch', 'numpy', 'pandas', 'albumentations', 'ray', 'optuna', 'mlflow', 'pydantic', 'sqlalchemy'}"
    check = f"import sys, {package.__name__}; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
