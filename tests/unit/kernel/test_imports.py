# SPDX-License-Identifier: GPL-2.0-only
"""Who may import whom: arrows point down, from the commands to the system calls."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "src"

# What of xlvs the modules of a layer may import; `xlvs` is its version.
MAY_IMPORT = {
    "xlvs.model": (),
    "xlvs.errors": (),
    "xlvs.kernel": ("xlvs.errors", "xlvs.kernel"),
    "xlvs.datapath": ("xlvs.errors", "xlvs.model", "xlvs.kernel", "xlvs.datapath"),
    "xlvs.realserver": ("xlvs.errors", "xlvs.kernel", "xlvs.datapath.hooks", "xlvs.realserver"),
    "xlvs.keepalived": ("xlvs.errors", "xlvs.model", "xlvs.keepalived"),
    "xlvs.bfd": ("xlvs.errors", "xlvs.model", "xlvs.keepalived", "xlvs.bfd"),
    "xlvs.checkers": (
        "xlvs.errors",
        "xlvs.model",
        "xlvs.kernel",
        "xlvs.keepalived",
        "xlvs.bfd",
        "xlvs.checkers",
    ),
    "xlvs.daemon": (
        "xlvs.errors",
        "xlvs.model",
        "xlvs.kernel",
        "xlvs.datapath",
        "xlvs.keepalived",
        "xlvs.bfd",
        "xlvs.checkers",
        "xlvs.doctor.probe",
        "xlvs.daemon",
    ),
    "xlvs.lab": (
        "xlvs.errors",
        "xlvs.model",
        "xlvs.kernel",
        "xlvs.datapath",
        "xlvs.realserver",
        "xlvs.lab",
    ),
    "xlvs.doctor": (
        "xlvs.errors",
        "xlvs.model",
        "xlvs.kernel",
        "xlvs.datapath",
        "xlvs.realserver",
        "xlvs.lab",
        "xlvs.doctor",
    ),
}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def _imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it that happens."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


def _belongs(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("name", MODULES)
def test_layers(name: str) -> None:
    for layer, allowed in MAY_IMPORT.items():
        if _belongs(name, layer):
            for imported in _imports(MODULES[name]):
                ours = _belongs(imported, "xlvs") and imported != "xlvs"
                assert not ours or any(_belongs(imported, one) for one in allowed), imported


@pytest.mark.parametrize("name", MODULES)
def test_nothing_but_the_standard_library(name: str) -> None:
    for imported in _imports(MODULES[name]):
        top = imported.partition(".")[0]
        assert top == "xlvs" or top in sys.stdlib_module_names, imported


def test_every_layer_is_there() -> None:
    """Guards the rules above against a renamed package."""
    for layer in MAY_IMPORT:
        assert any(_belongs(name, layer) for name in MODULES)
