"""What a result is made of, as hashes: of values, of settings that differ from their defaults, of the program's text."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import xxhash

__all__ = ["code_of", "digest"]

_PACKAGE = "lerar_dask"
_ROOT = Path(__file__).parent
_SCIENCE = ("constants", "grid", "kernels", "products", "stages")
"""Modules and packages whose text decides what comes out; where things lie and who runs them does not."""
_IMPORT = re.compile(rf"^\s*from ({_PACKAGE}[\w.]*) import (\([^)]*\)|.+)$", re.MULTILINE)
_NO_CODE = re.compile(r"^\s*(#.*)?\n", re.MULTILINE)


def digest(*parts: Any) -> str:
    """Hash of settings objects and plain values, the same in every process: 32 hex digits.

    A setting at its default, or of no effect beside the others, is left out: a new setting remakes nothing.

    Raises
    ------
    TypeError
        for a value of another type than JSON's, `Path` and dataclasses of such.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@cache
def code_of(module: str) -> str:
    """Hash of the text of a module and of the stages, kernels and products that it imports, however far down.

    Blank lines and lines of comment do not count.
    """
    text = xxhash.xxh3_128()
    for name in sorted(_closure(module)):
        text.update(f"{name}\0{_text(name)}\0".encode())
    return text.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dict(_of_effect(value))
    raise TypeError(f"{type(value).__name__} has no digest")


def _of_effect(value: Any) -> Iterator[tuple[str, Any]]:
    """Fields of a dataclass that are not at their default and have an effect beside the others."""
    for one in dataclasses.fields(value):
        needs: Mapping[str, tuple[Any, ...]] = one.metadata.get("only", {})
        if all(getattr(value, name) in of for name, of in needs.items()):
            own = getattr(value, one.name)
            if own != one.metadata.get("first", one.default):
                yield one.name, own


def _closure(module: str) -> set[str]:
    found, todo = set[str](), [module]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [other for other in _imports(name) if other.split(".")[1] in _SCIENCE]
    return found


@cache
def _imports(module: str) -> tuple[str, ...]:
    """Modules of this package that a module imports."""
    found = []
    for source, names in _IMPORT.findall(_text(module)):
        found += [source] if _file(source) else []
        for name in re.findall(r"(\w+)(?: as \w+)?", names):
            found += [f"{source}.{name}"] if _file(f"{source}.{name}") else []
    return tuple(name for name in found if name != _PACKAGE)


@cache
def _text(module: str) -> str:
    path = _file(module)
    assert path is not None
    return _NO_CODE.sub("", path.read_text(encoding="utf-8"))


def _file(module: str) -> Path | None:
    path = _ROOT.joinpath(*module.split(".")[1:])
    for one in (path.with_suffix(".py"), path / "__init__.py"):
        if one.is_file():
            return one
    return None
