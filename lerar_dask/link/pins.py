"""Pins: a TOML table by which a user fixes or forbids links, says what frames are, and keeps lights apart.

::

    [[pin]]
    light = "*M31*"            # pattern on the light's path
    dark = "*/darks_new/*"     # only masters whose frames match; "" = none at all
    [[forbid]]
    light = "*"
    flat = "*2024-11-02*"
    [[kind]]
    frame = "*/flats/*"        # whatever the header says
    is = "flat"                # light, dark, flat, bias or flat-dark
    [[apart]]
    light = "*/second_field/*" # these lights make a master of their own
    name = "second"            # behind the group's name
"""

from __future__ import annotations

import difflib
import fnmatch
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from lerar_dask.errors import UsageError

__all__ = ["Pins", "read_pins"]

_WORDS = ("light", "dark", "flat", "bias")
_KINDS = ("light", "dark", "flat", "bias", "flat-dark")


@dataclass(frozen=True)
class Pins:
    """Patterns: (pattern of lights, kind, pattern of the master's frames)."""

    pinned: tuple[tuple[str, str, str], ...] = ()
    forbidden: tuple[tuple[str, str, str], ...] = ()
    kinds: tuple[tuple[str, str], ...] = ()
    """(pattern of frames, kind)."""
    parted: tuple[tuple[str, str], ...] = ()
    """(pattern of lights, name)."""

    def kind(self, frame: Path) -> str | None:
        """What the user says that a frame is."""
        return next((kind for pattern, kind in self.kinds if _matches(frame, pattern)), None)

    def apart(self, light: Path) -> str:
        """Name under which a light is kept apart from others of its target, filter and camera; empty: it is not."""
        return next((name for pattern, name in self.parted if _matches(light, pattern)), "")

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
        tables = tomllib.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError as error:
        raise UsageError(f"the pins {path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the pins {path} are no TOML: {error}") from error
    _check(tables, ("pin", "forbid", "kind", "apart"), path)
    kinds = _pairs(tables.get("kind", []), ("frame", "is"), path)
    for _, kind in kinds:
        if kind not in _KINDS:
            raise UsageError(f"{path}: no frame is a {kind!r}", f"choose from {', '.join(_KINDS)}")
    return Pins(
        _rows(tables.get("pin", []), path),
        _rows(tables.get("forbid", []), path),
        kinds,
        tuple(
            (light, re.sub(r"[^\w.+-]+", "-", name))
            for light, name in _pairs(tables.get("apart", []), ("light", "name"), path)
        ),
    )


def _pairs(entries: list[dict[str, str]], words: tuple[str, str], path: Path) -> tuple[tuple[str, str], ...]:
    """Rows of a table of two words, both of which must be there."""
    _check_tables(entries, path)
    for entry in entries:
        _check(entry, words, path)
        if missing := [word for word in words if not str(entry.get(word, ""))]:
            raise UsageError(
                f"{path}: a table lacks the word {missing[0]!r}", f"write {words[0]} = ... and {words[1]} = ..."
            )
    return tuple((str(entry[words[0]]), str(entry[words[1]])) for entry in entries)


def _rows(entries: list[dict[str, str]], path: Path) -> tuple[tuple[str, str, str], ...]:
    _check_tables(entries, path)
    rows = []
    for entry in entries:
        _check(entry, _WORDS, path)
        rows += [(str(entry.get("light", "*")), kind, str(entry[kind])) for kind in _WORDS[1:] if kind in entry]
    return tuple(rows)


def _check_tables(entries: object, path: Path) -> None:
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise UsageError(
            f"{path}: a pin is a table in double brackets", "write [[pin]], [[forbid]], [[kind]] or [[apart]]"
        )


def _check(table: dict, words: tuple[str, ...], path: Path) -> None:
    for word in table:
        if word not in words:
            near = difflib.get_close_matches(word, words, n=1)
            raise UsageError(f"{path}: no such word: {word!r}", f"did you mean {near[0]!r}?" if near else "")


def _matches(path: Path, pattern: str) -> bool:
    return fnmatch.fnmatch(str(path), pattern) or fnmatch.fnmatch(path.name, pattern)
