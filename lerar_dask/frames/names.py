"""What folder and file names tell where the header is silent; a keyword always beats a name."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import PurePath
from typing import Any

__all__ = [
    "copy_marks",
    "facts_of",
    "filter_of",
    "is_calibrated",
    "is_perhaps_result",
    "is_result",
    "kind_of",
    "kind_of_folder",
    "kind_of_name",
    "moment_of",
    "object_of",
]

_KIND_WORDS = {
    "light": {"light", "lights", "sub", "subs", "lightframe", "lightframes"},
    "dark": {"dark", "darks", "darkframe", "darkframes"},
    "flat": {"flat", "flats", "flatfield", "flatfields", "skyflat", "skyflats", "flatframe", "flatframes"},
    "bias": {"bias", "biases", "biass", "offset", "offsets", "zero", "zeros", "biasframe", "biasframes"},
    "flat-dark": {"darkflat", "darkflats", "flatdark", "flatdarks"},
}
_PLURALS = {"lights", "darks", "flats", "biases", "darkflats", "flatdarks", "skyflats", "subs"}
"""A folder with such a word holds frames of the kind, whatever else stands in its name."""
_BESIDE = set(
    re.findall(
        r"\w+",
        """
        frame frames library lib master masters raw raws cal calibration fits new old night session gain offset bin
        binning iso exp exposure temp filter dwarf cam s sec secs second seconds ms min c deg degc x g nm t of for and l
        r b lum red green blue ha hb o oiii sii nii h alpha halpha mono osc rgb lrgb sho hoo clear ir uv cut lp led panel
        sky dusk dawn
        """,
    )
)
"""Words that stand beside a kind's; any other word makes a singular a part of a target's name (`Dark Shark Nebula`)."""
_NAME_KINDS = (
    ("flat-dark", r"(^|[_\W])(dark_?flat|flat_?dark)"),
    ("dark", r"(^|[_\W])(master_?)?darks?([_\W\d]|$)"),
    ("flat", r"(^|[_\W])(master_?)?(sky_?)?flats?([_\W\d]|$)"),
    ("bias", r"(^|[_\W])(master_?)?bias([_\W\d]|$)"),
    ("light", r"(^|[_\W])lights?([_\W\d]|$)"),
)
_FILTER_WORDS = {
    *("h[_-]?alpha", "ha", "h[_-]?beta", "hb", "oiii", "o3", "sii", "s2", "nii"),
    *("lum", "luminance", "luminosity", "red", "green", "blue"),
}
_FILTER = re.compile(rf"(?:^|(?<=[_\-\s]))(?:({'|'.join(sorted(_FILTER_WORDS))})|([LRGB]))(?=[_\-\s]|$)", re.IGNORECASE)
_RESULT = (
    r"(^|[_\W])(master_?(light|dark|flat|bias)|stack|stacked|autosave\d*|stack_\d+|dso_stacked|result)([_\W]|$)|_thn$"
)
_WEAK_RESULT = r"(^|[_\W])(integration|drizzle\w*)([_\W]|$)"
_MADE_PREFIX = re.compile(r"((?:r|pp|bkg|cal|reg|conv|mirror|debayer|drizzle|cosme)_)+(?=\w)")
_MADE_SUFFIX = re.compile(r"_((?:c|cc|d|r|a|n|b|cal|reg|calibrated|registered|debayered|aligned|converted)(?:_|$))+$")
_MADE_FOLDERS = set(
    re.findall(r"\w+", "calibrated registered debayered aligned converted conv process processed cosmetized")
)
_CALIBRATED = {"pp_", "cal_", "_c", "_cc", "_cal", "_calibrated", "calibrated"}
_PLAIN_FOLDERS = {
    "",
    "raw",
    "raws",
    "data",
    "night",
    "images",
    "fits",
    "autorun",
    "live",
    "plan",
    "light",
    *_MADE_FOLDERS,
}


def kind_of(path: PurePath) -> str | None:
    """Kind by the nearest folder that names one, then by the file's name."""
    return kind_of_folder(path) or kind_of_name(path)


def kind_of_folder(path: PurePath) -> str | None:
    """Kind by the nearest folder that names one, anywhere in its name: `Flats_Ha`, `Darks 300s`."""
    return next((kind for part in reversed(path.parent.parts[-4:]) if (kind := _kind_of_part(part))), None)


def kind_of_name(path: PurePath) -> str | None:
    """Kind by the file's name."""
    return next((kind for kind, pattern in _NAME_KINDS if re.search(pattern, path.stem, re.IGNORECASE)), None)


def copy_marks(path: PurePath) -> tuple[str, ...]:
    """What a file's name, or the folder it lies in, says that a program has done to it: `pp_`, `_r`, `registered`."""
    marks = []
    if match := _MADE_PREFIX.match(path.stem):
        marks += [f"{word}_" for word in match[0].rstrip("_").split("_")]
    if match := _MADE_SUFFIX.search(path.stem):
        marks += [f"_{word}" for word in match[0].strip("_").split("_")]
    folder = path.parent.name.lower()
    return tuple(marks) + ((folder,) if folder in _MADE_FOLDERS else ())


def is_calibrated(path: PurePath) -> bool:
    """Whether the marks in a file's name say that it was calibrated."""
    return bool(_CALIBRATED & set(copy_marks(path)))


def _kind_of_part(part: str) -> str | None:
    words = [w.lower() for w in re.findall(r"[^\W\d_]+", part)]
    if words and part.lower().endswith("_sub"):
        return "light"
    pairs = {a + b for a, b in pairwise(words)}
    found = [kind for kind, known in _KIND_WORDS.items() if known & (set(words) | pairs)]
    if "flat-dark" in found:
        found = ["flat-dark"]
    if len(found) != 1:
        return None
    named = _KIND_WORDS[found[0]]
    others = [w for w in words if w not in named and w not in _BESIDE and w not in {"dark", "flat", "darks", "flats"}]
    return found[0] if not others or _PLURALS & (set(words) | pairs) else None


def is_result(path: PurePath) -> bool:
    """Whether the file's own name (never a folder's) says that it is a result, no sub."""
    return re.search(_RESULT, path.stem, re.IGNORECASE) is not None


def is_perhaps_result(path: PurePath) -> bool:
    """Whether its name has a word that may also be part of a target's or a plan's: a header's word goes before it."""
    return re.search(_WEAK_RESULT, path.stem, re.IGNORECASE) is not None


def facts_of(path: PurePath) -> dict[str, Any]:
    """Exposure, gain, sensor temperature and binning that the file's name tells."""
    name = path.stem
    facts: dict[str, Any] = {}
    if match := re.search(r"(?:^|_)(\d+(?:\.\d+)?)(ms|s|sec|secs)(?=_|$)", name, re.IGNORECASE):
        facts["exposure_s"] = float(match[1]) * (0.001 if match[2].lower() == "ms" else 1.0)
    elif match := re.search(r"exp_(\d+(?:\.\d+)?)", name, re.IGNORECASE):
        facts["exposure_s"] = float(match[1])
    if match := re.search(r"gain_?(\d+)", name, re.IGNORECASE):
        facts["gain"] = float(match[1])
    if match := re.search(r"_(-?\d+(?:\.\d+)?)C(?=_|$)", name):
        facts["sensor_temp_c"] = float(match[1])
    if match := re.search(r"(?:^|_)bin_?(\d)", name, re.IGNORECASE):
        facts["binning"] = (int(match[1]), int(match[1]))
    return facts


def filter_of(path: PurePath, target: str) -> str | None:
    """Filter that the file's name tells, or the nearest folder that tells one; a single letter must be a capital.

    None where one name tells several, as `Ha_OIII`. A color that is part of the target's name (`Blue Horsehead`) is none.
    """
    colors = {"red", "green", "blue"} & set(re.findall(r"[^\W\d_]+", target.lower()))
    for part in (path.stem, *reversed(path.parent.parts[-3:])):
        found = {word or letter for word, letter in _FILTER.findall(part) if word or letter.isupper()}
        found = {word for word in found if word.lower() not in colors}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def moment_of(path: PurePath) -> datetime | None:
    """Time stamp in the file's name; local time without a zone, good for sorting only."""
    match = re.search(r"(\d{4})-?(\d{2})-?(\d{2})[-_T](\d{2})-?(\d{2})-?(\d{2})", path.stem)
    try:
        if match is None:
            return None
        year, month, day, hour, minute, second = (int(g) for g in match.groups())
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def object_of(path: PurePath) -> str | None:
    """Target by the nearest folder that is no kind, no date and no plain word."""
    for part in reversed(path.parent.parts[-4:]):
        is_kind = _kind_of_part(part) is not None and not part.lower().endswith("_sub")
        if is_kind or re.fullmatch(r"[\d\-_:. ]+", part) or part.lower() in _PLAIN_FOLDERS or part == path.anchor:
            continue
        return re.sub(r"_sub$", "", part)
    return None
