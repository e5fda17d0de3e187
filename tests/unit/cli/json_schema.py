# SPDX-License-Identifier: GPL-2.0-only
"""Checks a value against a JSON Schema, as far as docs/json.md makes use of that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).resolve().parents[3] / "docs/json.md"

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None),
}  # fmt: skip
_KEYWORDS = {
    "$ref", "$schema", "$defs", "const", "description", "enum", "items", "maxItems", "maximum", "minimum",
    "oneOf", "properties", "required", "type",
}  # fmt: skip


def documented() -> dict[str, Any]:
    """The schema in docs/json.md."""
    schema: dict[str, Any] = json.loads(DOCUMENT.read_text().split("```json\n")[1].split("```")[0])
    return schema


def faults(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str = "$") -> Iterator[str]:
    """What is wrong with a value, one text each; an object's unknown field is a fault, too."""
    assert set(schema) <= _KEYWORDS, f"this checker does not know {set(schema) - _KEYWORDS}"
    if "$ref" in schema:
        yield from faults(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, where)
    if "oneOf" in schema:
        tries = [list(faults(value, one, root, where)) for one in schema["oneOf"]]
        if sum(not found for found in tries) != 1:
            yield f"{where}: {value!r} is not one of its kinds: {min(tries, key=len)}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        yield f"{where}: {value!r} is no {kinds}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is not in {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        yield f"{where}: {value!r} is not {schema['const']!r}"
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{where}: {value!r} is below {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        yield f"{where}: {value!r} is above {schema['maximum']}"
    if "properties" in schema:
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{where}: {name} is not there"
        for name, part in value.items():
            if name in schema["properties"]:
                yield from faults(part, schema["properties"][name], root, f"{where}.{name}")
            else:
                yield f"{where}: {name} is not documented"
    if "items" in schema:
        for number, part in enumerate(value):
            yield from faults(part, schema["items"], root, f"{where}[{number}]")
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        yield f"{where}: more than {schema['maxItems']}"


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and not (kind == "integer" and isinstance(value, bool))
