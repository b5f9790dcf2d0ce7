"""Text for a terminal: names of files, header values and error texts come from anywhere, and none of them may act there.

Whatever is no printable character (control and escape characters, marks that turn the direction of writing, bytes that
are no text) is shown as its code. All that the command prints goes through `say`.
"""

from __future__ import annotations

import sys
from typing import TextIO

__all__ = ["clean", "say"]


def clean(text: str) -> str:
    """The text in one line, without any character that is not printed."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _code(c) for c in text)


def say(text: str = "", *, file: TextIO | None = None) -> None:
    """One line on stdout, or on another stream."""
    print(clean(text), file=file or sys.stdout, flush=file is not None)


def _code(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
