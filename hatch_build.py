# SPDX-License-Identifier: GPL-2.0-only
"""Build hook: the distribution carries the compiled data plane.

With clang at hand the objects are compiled from ``bpf/`` whenever a source is
newer; without it, the objects that the source distribution carries are used.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileDataPlane(BuildHookInterface[Any]):  # type: ignore[misc]
    """Compile each ``bpf/NAME.bpf.c`` into ``src/xlvs/bpf/NAME.bpf.o``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Bring the objects up to date; `RuntimeError` where one is missing and cannot be made."""
        del version, build_data  # the same for every kind of distribution
        root = Path(self.root)
        headers = list(root.glob("bpf/*.h"))
        for source in root.glob("bpf/*.bpf.c"):
            target = root / "src/xlvs/bpf" / source.with_suffix(".o").name
            newest = max(path.stat().st_mtime for path in [source, *headers])
            if target.exists() and target.stat().st_mtime >= newest:
                continue
            if shutil.which("clang"):
                subprocess.run([root / "scripts/compile-bpf", source, target], check=True)
            elif not target.exists():
                raise RuntimeError(f"there is neither {target} nor a clang to compile {source}")
