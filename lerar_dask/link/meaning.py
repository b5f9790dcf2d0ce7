"""What names mean: targets, filters and cameras that programs and people spell in many ways.

In: words of headers and folders. Out: keys that are equal where the same thing is meant, and the spelling that most
frames use. Digits keep apart what they count: `M31-1` (a panel) is not `M311`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = ["camera_classes", "filter_key", "most_frequent", "same_camera", "target_key"]

_CATALOGS = {"messier": "m", "caldwell": "c", "sharpless": "sh", "barnard": "b"}
_FILTERS = {
    "l": ("l", "lum", "luminance", "luminosity"),
    "r": ("r", "red"),
    "g": ("g", "green"),
    "b": ("b", "blue"),
    "ha": ("ha", "halpha", "hα", "hydrogenalpha"),
    "hb": ("hb", "hbeta", "hβ", "hydrogenbeta"),
    "oiii": ("oiii", "o3", "oxygeniii", "oxygen3"),
    "sii": ("sii", "s2", "sulfurii", "sulphurii", "sulfur2", "sulphur2"),
    "nii": ("nii", "n2", "nitrogenii", "nitrogen2"),
}
_FILTER_OF = {word: key for key, words in _FILTERS.items() for word in words}
_FILTER_MAKERS = {"antlia", "astrodon", "astronomik", "baader", "chroma", "idas", "optolong", "svbony", "zwo"}
_CAMERA_MAKERS = {"asi", "ascom", "camera", "ccd", "zwo"}
"""Words that drivers put before a camera's own name."""


def target_key(name: str) -> str:
    """Key of a target: `M 81`, `m-81` and `Messier 81` are one.

    Examples
    --------
    >>> target_key("M 81") == target_key("Messier-81"), target_key("M31-1") == target_key("M311")
    (True, False)
    """
    runs = [_CATALOGS.get(run, run) for run in _runs(name)]
    key = ""
    for run in runs:
        key += "-" + run if key and key[-1].isdigit() and run[0].isdigit() else run
    return key or " ".join(name.split()).casefold()


def filter_key(name: str | None) -> str:
    """Key of a filter: `Ha`, `HA`, `H-alpha` and `Baader Ha` are one; a width in nm is a part of it; empty: none.

    Examples
    --------
    >>> filter_key("H_alpha 3nm"), filter_key("Lum"), filter_key(None)
    ('ha 3 nm', 'l', '')
    """
    text = _plain(name or "")
    width = re.search(r"(\d+(?:\.\d+)?)\s*nm\b", text)
    if width:
        text = text[: width.start()] + " " + text[width.end() :]
    words = re.findall(r"[^\W_]+", text)
    own = [word for word in words if word not in _FILTER_MAKERS] or words
    base = _FILTER_OF.get("".join(own), "".join(own))
    return f"{base} {float(width[1]):g} nm".strip() if width else base or text.strip()


def same_camera(a: str, b: str) -> bool:
    """Whether two names may mean one camera: drivers add words to a name, so one may contain the other."""
    words_a, words_b = _camera_words(a), _camera_words(b)
    return not words_a or not words_b or words_a <= words_b or words_b <= words_a


def camera_classes(names: Iterable[str | None]) -> dict[str | None, str]:
    """One name for all names of each camera; an unknown camera is the only other one, where there is only one.

    The names of a class fit each other pairwise, so that a word that all makers use joins no two cameras.
    """
    counts = Counter(names)
    known = sorted((n for n in counts if n), key=lambda n: (-len(_camera_words(n)), n))
    classes: list[list[str]] = []
    for name in known:
        fitting = [c for c in classes if all(same_camera(name, other) for other in c)]
        if len(fitting) == 1:
            fitting[0].append(name)
        else:  # none, or it may be any of several
            classes.append([name])
    of: dict[str | None, str] = {}
    for members in classes:
        spelling = most_frequent({name: counts[name] for name in members})
        of.update(dict.fromkeys(members, spelling))
    of[None] = of[""] = next(iter(of.values())) if len(classes) == 1 else ""
    return of


def most_frequent(counts: dict[str, int]) -> str:
    """The name that most frames use; of equally frequent ones the first in the alphabet."""
    return min(counts, key=lambda name: (-counts[name], name))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _runs(text: str) -> Sequence[str]:
    """Runs of letters and runs of digits."""
    return re.findall(r"\d+|[^\W\d_]+", _plain(text))


def _camera_words(name: str) -> set[str]:
    words = re.findall(r"[a-z]*\d+[a-z]*|[^\W\d_]+", _plain(name))
    return {re.sub(r"^asi(?=\d)", "", word) for word in words} - _CAMERA_MAKERS
