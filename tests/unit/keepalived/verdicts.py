# SPDX-License-Identifier: GPL-2.0-only
"""What the real ``keepalived -t`` says of the corpus: asked anew, or as it was recorded.

    sudo .venv/bin/python -m tests.unit.keepalived.verdicts

asks the installed keepalived about every file and writes ``verdicts.json``.
It runs in a network namespace of its own, which has the interfaces lo, eth0
and eth1 and no way out.  Files that keepalived 2.2.7 crashes on have no verdict.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
RECORD = HERE / "verdicts.json"
CONFIG_ID = "director"
"""What ``@id`` lines are compared with."""

# One shell for all files: a namespace costs more than keepalived does.
_ASK = r"""
ip link set lo up
ip link add eth0 type veth peer name eth1
ip address add 192.168.200.1/24 dev eth0
ip link set eth0 up
ip link set eth1 up
for file in "$@"; do
    printf '=== %s\n' "$file"
    timeout 20 keepalived -t -i director -f "$file" 2>&1
    printf '\n--- %s\n' "$?"
done
"""


class Verdict(NamedTuple):
    """keepalived's exit status and messages; each message once, without its place."""

    status: int
    messages: list[str]


def corpus() -> list[Path]:
    """All files of the corpus."""
    return sorted(CORPUS.glob("*.conf"))


def ask(files: Sequence[Path]) -> dict[str, Verdict]:
    """What keepalived says of these files, by name.  Root only."""
    answer = subprocess.run(
        ["unshare", "--net", "sh", "-c", _ASK, "ask", *map(str, files)],
        cwd=CORPUS,
        capture_output=True,
        check=True,
        timeout=600,
    ).stdout.decode("utf-8", "surrogateescape")
    verdicts = {}
    for part in answer.split("=== ")[1:]:
        name, _, rest = part.partition("\n")
        text, _, status = rest.rpartition("\n--- ")
        verdicts[Path(name).name] = Verdict(int(status), distinct(text.splitlines()))
    return verdicts


def distinct(lines: Sequence[str]) -> list[str]:
    """Messages without place, each once, in order."""
    messages = (re.sub(r"^\((?:.*: )?Line \d+\) ", "", line) for line in lines)
    return list(dict.fromkeys(message for message in messages if message.strip()))


def recorded() -> dict[str, Verdict]:
    """What was recorded."""
    return {name: Verdict(*entry) for name, entry in json.loads(RECORD.read_text()).items()}


def main() -> None:
    """Ask about everything and write it down."""
    verdicts = ask(corpus())
    RECORD.write_text(json.dumps(verdicts, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(verdicts)} verdicts in {RECORD}")


if __name__ == "__main__":
    main()
