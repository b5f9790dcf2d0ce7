"""Pins: a TOML table by which a user fixes or forbids links.

::

    [[pin]]
    light = "*M31*"            # pattern on the light's path
    dark = "*/darks_new/*"     # only masters whose frames match; "" = none at all
    [[forbid]]
    light = "*"
    flat = "*2024-11-02*"
"""

from __future__ import annotations

import difflib
import fnmatch
import tomllib
from dataclasses import dataclass
from pathlib import Path

from lerar_dask.errors import UsageError

__all__ = ["Pins", "read_pins"]

_WORDS = ("light", "dark", "flat", "bias")


@dataclass(frozen=True)
class Pins:
    """Patterns: (pattern of lights, kind, pattern of the master's frames)."""

    pinned: tuple[tuple[str, str, str], ...] = ()
    forbidden: tuple[tuple[str, str, str], ...] = ()

    def allows(self, light: Path, kind: str, frames: list[Path]) -> bool:
        """Whether a master of these frames may be linked to the light."""
        for pattern, of, wanted in self.pinned:
            if of == kind and _matches(light, pattern) and not (wanted and all(_matches(f, wanted) for f in frames)):
                return False
        return not any(
            of == kind and _matches(light, pattern) and any(_matches(f, barred) for f in frames)
            for pattern, of, barred in self.forbidden
        )

    def pins(self, light: Path, kind: str) -> bool:
        """Whether the user has fixed this link."""
        return any(of == kind and _matches(light, pattern) for pattern, of, _ in self.pinned)


def read_pins(path: Path | None) -> Pins:
    """Pins from a TOML file.

    Raises
    ------
    UsageError
        when the file cannot be read or has unknown words.
    """
    if path is None:
        return Pins()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the pins {path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the pins {path} are no TOML: {error}") from error
    _check(tables, ("pin", "forbid"), path)
    return Pins(_rows(tables.get("pin", []), path), _rows(tables.get("forbid", []), path))


def _rows(entries: list[dict[str, str]], path: Path) -> tuple[tuple[str, str, str], ...]:
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise UsageError(f"{path}: a pin is a table in double brackets", "write [[pin]] or [[forbid]]")
    rows = []
    for entry in entries:
        _check(entry, _WORDS, path)
        rows += [(str(entry.get("light", "*")), kind, str(entry[kind])) for kind in _WORDS[1:] if kind in entry]
    return tuple(rows)


def _check(table: dict, words: tuple[str, ...], path: Path) -> None:
    for word in table:
        if word not in words:
            near = difflib.get_close_matches(word, words, n=1)
            raise UsageError(f"{path}: no such word: {word!r}", f"did you mean {near[0]!r}?" if near else "")


def _matches(path: Path, pattern: str) -> bool:
    return fnmatch.fnmatch(str(path), pattern) or fnmatch.fnmatch(path.name, pattern)
