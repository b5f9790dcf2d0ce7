"""Commands and environments of other processes that run this program, wherever they are started.

Python looks for a module first in the folder in which it is called: in that of a clone it would find the clone's text in
place of the program that is installed.
"""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path

__all__ = ["environment", "python_path", "python_words"]


def python_words(module: str) -> list[str]:
    """Command that runs a module of this program, or of what it needs."""
    return [sys.executable, "-P", "-m", module]


def python_path(root: Path = Path(__file__).parents[2]) -> str:
    """PYTHONPATH with which another process finds the text that this one runs.

    Parameters
    ----------
    root : folder that holds the package; of an installed one nothing need be said
    """
    told = os.environ.get("PYTHONPATH", "")
    installed = {Path(place).resolve() for place in (*site.getsitepackages(), site.getusersitepackages())}
    return told if root.resolve() in installed else os.pathsep.join(filter(None, (str(root), told)))


def environment() -> dict[str, str]:
    """Of a process that finds the text that this one runs."""
    return {**os.environ, "PYTHONPATH": python_path()}  # an empty one is none
