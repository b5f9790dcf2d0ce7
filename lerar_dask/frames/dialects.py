"""From the cards of any capture or stacking program to one `Header`.

For each field the keywords are tried in order; the first value that parses and lies in range wins. What the cards do not
say, folder and file name may. Where programs use one word for different things, the program decides (sources:
the programs' own code and headers seen in the wild).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import PurePath
from typing import Any

from lerar_dask.frames import names
from lerar_dask.frames.header import MAX_BINNING, MAX_TEXT, RANGES, Header
from lerar_dask.frames.values import (
    NOTHING,
    PATTERNS,
    count_of,
    degrees_of,
    filter_of,
    moment_of,
    number_of,
    positive_of,
    sexagesimal_of,
    temperature_of,
    text_of,
)
from lerar_dask.frames.wcs import solution_of

__all__ = ["Cards", "normalize_header"]

Cards = Mapping[str, Any]
"""First value of each keyword (str, int, float, bool); HISTORY and COMMENT are lists of lines."""

_KINDS = {
    "light": (
        "light",
        "lightframe",
        "object",
        "science",
        "sci",
        "snapshot",
        "tricolor",
        "expose",
        "exposure",
        "target",
    ),
    "dark": ("dark", "darkframe", "darkfield"),
    "flat": ("flat", "flatframe", "flatfield", "skyflat", "domeflat", "twilightflat", "lampflat", "screenflat"),
    "bias": ("bias", "biasframe", "zero", "offset", "offsetframe", "biasfield"),
    "flat-dark": ("darkflat", "flatdark", "darkforflat"),
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words}
_KIND_CARDS = ("IMAGETYP", "IMGTYPE", "OBSTYPE", "OBS_TYPE", "OBS-TYPE", "FRAME", "FRAMETYP", "CALFRAME", "INTEGRAT")
_PICTTYPE = {1: "light", 2: "bias", 3: "dark", 4: "flat"}


class _Found:
    """Fields found so far, with the keyword of each."""

    def __init__(self, cards: Cards) -> None:
        self.cards = cards
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.warnings: list[str] = []

    def take(self, name: str, words: Sequence[str], parse: Callable[[Any], Any]) -> None:
        for word in words:
            if word in self.cards:
                value = parse(self.cards[word])
                if value is not None:
                    self.put(name, value, word)
                    return

    def put(self, name: str, value: Any, source: str) -> None:
        self.values[name] = value
        self.sources[name] = source


def normalize_header(cards: Cards, path: PurePath, *, shape: tuple[int, ...] = ()) -> Header:
    """Header of a file from its cards and its path.

    Parameters
    ----------
    cards : first value of each keyword
    shape : (rows, columns), or three axes for an RGB result
    """
    found = _Found(cards)
    program = " ".join(str(cards[w]) for w in ("SWCREATE", "CREATOR", "PROGRAM", "SOFTWARE", "ORIGIN") if w in cards)
    comments = " ".join(cards.get("COMMENT", ()))
    if "INDI" in comments:
        program += " INDI"
    history = " ".join(cards.get("HISTORY", ()))
    if "PixInsight" in comments + history or "ImageIntegration." in history:
        program += " PixInsight"
    found.put("program", program.strip() or None, "SWCREATE")
    _numbers(found)
    _words(found)
    _kind(found, path, comments)
    _times(found, path)
    _pointing(found, program)
    _color(found, shape, program)
    _from_names(found, path)
    found.put("wcs", solution_of(cards), "CTYPE1")
    values = {k: _bounded(k, v) for k, v in found.values.items()}
    values = {k: v for k, v in values.items() if v is not None}
    if values.get("start_unix") is None:
        values.pop("start", None)
    return Header(**values, sources=found.sources, warnings=tuple(found.warnings))


def _bounded(name: str, value: Any) -> Any:
    """A value that is in range, of a length that a file name or a table can bear; None for what no camera has."""
    if value is None:
        return None
    if name in RANGES:
        least, most = RANGES[name]
        return value if least <= value <= most else None
    if name == "binning" and max(value) > MAX_BINNING:
        return None
    return value[:MAX_TEXT] if isinstance(value, str) else value


def _numbers(found: _Found) -> None:
    found.take("exposure_s", ("EXPTIME", "EXPOSURE", "EXP"), positive_of)
    found.take("gain", ("GAIN", "ISO", "ISOSPEED"), lambda v: number_of(v, low=0))
    found.take("offset", ("OFFSET", "BLKLEVEL"), lambda v: number_of(v, low=0))
    found.take("e_per_adu", ("EGAIN", "CVF", "EPERADU"), lambda v: number_of(v, low=1e-6))
    found.take("read_noise_e", ("RDNOISE", "READNOIS"), positive_of)
    found.take("set_temp_c", ("SET-TEMP", "SETTEMP"), temperature_of)
    temperatures = ("CCD-TEMP", "CCD_TEMP", "CCDTEMP", "TEMPERAT", "CAMTCCD", "DET-TEMP", "CAMTEMP")
    found.take("sensor_temp_c", temperatures, temperature_of)
    found.take("pixel_um", ("XPIXSZ", "XPIXELSZ", "PIXSIZEX", "XPIXSIZE", "PIXSIZE1"), lambda v: number_of(v, low=0.1))
    found.take("focal_mm", ("FOCALLEN", "FOCAL"), lambda v: number_of(v, low=1))
    found.take("rotator_deg", ("ROTATANG", "ROTATOR", "POSANGLE", "ANGLE"), number_of)
    found.take("airmass", ("AIRMASS", "SECZ"), lambda v: number_of(v, low=0.99))
    found.take("saturation_adu", ("SATURATE", "DATAMAX", "WHTLVLN"), lambda v: number_of(v, low=1))
    found.take(
        "n_subs",
        ("STACKCNT", "NCOMBINE", "NIMAGES", "NUMFRAME", "LIGH_CNT", "DARK_CNT", "FLAT_CNT", "BIAS_CNT"),
        count_of,
    )
    found.take("site_lat_deg", ("SITELAT", "OBSGEO-B", "LAT-OBS", "LATITUDE", "SITE-LAT", "OBSLAT"), degrees_of)
    found.take("site_lon_deg", ("OBSGEO-L", "SITELONG", "LONG-OBS", "LONGITUD", "SITE-LON", "OBSLONG"), degrees_of)
    x = next((count_of(found.cards[w]) for w in ("XBINNING", "CCDXBIN", "BINX") if w in found.cards), None)
    y = next((count_of(found.cards[w]) for w in ("YBINNING", "CCDYBIN", "BINY") if w in found.cards), None)
    if x is None and (match := re.match(r"(\d+)\D+(\d+)", str(found.cards.get("BINNING", "")))):
        x, y = count_of(match[1]), count_of(match[2])
    if x is not None or y is not None:
        found.put("binning", (max(1, y or x or 1), max(1, x or y or 1)), "XBINNING")
    pixel, focal = found.values.get("pixel_um"), found.values.get("focal_mm")
    if "SCALE" in found.cards and (scale := number_of(found.cards["SCALE"], low=1e-3)):
        found.put("scale_arcsec_px", scale, "SCALE")
    elif pixel and focal:
        found.put("scale_arcsec_px", 206.264806 * pixel / focal, "XPIXSZ, FOCALLEN")
    if "EXPTIME" in found.cards and "EXPOSURE" in found.cards:
        a, b = positive_of(found.cards["EXPTIME"]), positive_of(found.cards["EXPOSURE"])
        if a and b and abs(a - b) > max(0.01, 0.001 * a):
            found.warnings.append(f"EXPTIME {a:g} and EXPOSURE {b:g} differ; EXPTIME is taken")


def _words(found: _Found) -> None:
    found.take("filter", ("FILTER", "FILT-1"), filter_of)
    found.take("camera", ("INSTRUME", "CAMERA", "CAMERAID", "CAMID"), text_of)
    found.take("readout_mode", ("READOUTM", "READMODE"), text_of)
    found.take("telescope", ("TELESCOP",), text_of)
    found.take("object", ("OBJECT",), lambda v: None if str(v).strip().lower() in NOTHING | {"test"} else text_of(v))
    found.take("row_order", ("ROWORDER",), lambda v: str(v).strip().upper() if "-" in str(v) else None)
    found.take("pier_side", ("PIERSIDE",), lambda v: {"w": "west", "e": "east"}.get(str(v).strip().lower()[:1]))
    found.take("calibrated", ("CALSTAT",), _steps_of)
    _pedestal(found)


def _pedestal(found: _Found) -> None:
    """A constant that was added while calibrating: MaxIm writes what is to be added (negative), others what was added.

    A positive one is believed of calibrated frames alone.
    """
    value = number_of(found.cards.get("PEDESTAL"))
    if value and (value < 0 or found.values.get("calibrated")):
        found.put("pedestal_adu", abs(value), "PEDESTAL")


def _steps_of(value: Any) -> str | None:
    """Steps of calibration as letters (B bias, D dark, F flat, others of programs); None for words that are none."""
    text = re.sub(r"[\s,/+;-]", "", str(value)).upper()
    return text if re.fullmatch(r"[ABCDFMST]{1,8}", text) else None


def _kind(found: _Found, path: PurePath, comments: str) -> None:
    cards = found.cards
    history = " ".join(cards.get("HISTORY", ()))
    strange = ""
    for word in _KIND_CARDS:
        if not isinstance(cards.get(word), str):
            continue
        plain = re.sub(r"[\s_\-]", "", cards[word]).lower()
        master = re.sub(r"^(master|m(?=bias|dark|flat)|super)", "", plain)
        if plain in _KIND_OF or master in _KIND_OF:
            found.put("kind", _KIND_OF.get(plain) or _KIND_OF[master], word)
            found.values["is_master"] = plain not in _KIND_OF
            break
        if plain == "integration":
            found.put("kind", "light", word)
            found.values["is_stack"] = True
            break
        strange = strange or ((text_of(cards[word]) or "")[:40] if "TYP" in word else "")
    else:
        found.values["strange_kind"] = strange
        if count_of(cards.get("PICTTYPE")) in _PICTTYPE:
            found.put("kind", _PICTTYPE[count_of(cards["PICTTYPE"]) or 1], "PICTTYPE")
    named = names.kind_of(path)
    if "kind" not in found.values and named:
        found.put("kind", named, "name")
    told = found.values.get("kind") if found.sources.get("kind") != "name" else None
    near = names.kind_of_folder(PurePath(path.parent.name) / path.name) or names.kind_of_name(path)
    if told and near and near != told and {told, near} != {"dark", "flat-dark"}:
        found.values["named_kind"] = near
    if match := re.search(r"(?:ImageIntegration|FastIntegration)\.numberOfImages:\s*(\d+)", history):
        found.put("n_subs", int(match[1]), "HISTORY")
    many = (found.values.get("n_subs") or 1) > 1
    total = next((positive_of(cards[w]) for w in ("LIVETIME", "TOTALEXP") if w in cards), None)
    exposure = found.values.get("exposure_s")
    # EXPTIME of our own masters is the sum, with NCOMBINE beside it; SharpCap's stacks tell one sub apart.
    many = many or bool(total and exposure and total > 1.5 * exposure) or "SUBEXP" in cards
    result = many or "Master frame generated" in comments or found.values.get("is_master")
    if told == "light" and not result:
        # A card says what it is: a name alone is looked at beside its pixels and the other files.
        found.values["is_named_result"] = names.is_result(path)
    else:
        result = result or names.is_result(path) or (told is None and names.is_perhaps_result(path))
    if "kind" not in found.values and result:
        found.put("kind", "light", "name")
    if result:
        kind = found.values.get("kind")
        found.values["is_master"] = kind in ("dark", "flat", "bias", "flat-dark")
        found.values["is_stack"] = kind in ("light", "unknown", None)


def _times(found: _Found, path: PurePath) -> None:
    cards, start = found.cards, None
    for word in ("DATE-BEG", "DATE-OBS"):
        if word in cards:
            extra = cards.get("TIME-OBS", cards.get("UT-START", ""))
            start = moment_of(str(cards[word]), str(extra))
            if start:
                found.put("start", None, word)
                break
    if start is None and (day := number_of(cards.get("MJD-OBS"), low=20000)):
        start = datetime(1858, 11, 17, tzinfo=UTC) + timedelta(days=day)
        found.put("start", None, "MJD-OBS")
    if start is None and (start := names.moment_of(path)):
        found.put("start", None, "name")
    if start is None:
        return
    dwarf_3 = re.fullmatch(r"DWARF\W*(III|3)", str(cards.get("INSTRUME", "")).strip().upper())
    if dwarf_3 and found.sources["start"] == "DATE-OBS":
        # It writes the end of the exposure; Dwarf II writes the start, its DATE comes an exposure later.
        start -= timedelta(seconds=found.values.get("exposure_s") or 0.0)
    found.values["start"] = start.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    found.values["start_unix"] = start.timestamp()
    longitude = found.values.get("site_lon_deg") or 0.0
    evening = start + timedelta(hours=longitude / 15.0) - timedelta(hours=12)
    found.put("night", evening.strftime("%Y-%m-%d"), found.sources["start"])


def _pointing(found: _Found, program: str) -> None:
    cards = found.cards
    hours = "DWARF" in str(cards.get("ORIGIN", "")).upper() and "EXPTIME" not in cards
    if isinstance(cards.get("CTYPE1"), str) and "RA" in cards["CTYPE1"] and "CRVAL1" in cards:
        pair = number_of(cards["CRVAL1"]), number_of(cards.get("CRVAL2"))
        source = "CRVAL1"
    elif isinstance(cards.get("RA"), int | float) and isinstance(cards.get("DEC"), int | float):
        right = number_of(cards["RA"])
        pair = (None if right is None else right * (15.0 if hours else 1.0), number_of(cards["DEC"]))
        source = "RA"
    else:
        ra, dec = cards.get("OBJCTRA", cards.get("RA")), cards.get("OBJCTDEC", cards.get("DEC"))
        right = sexagesimal_of(ra)
        pair = (None if right is None else right * 15.0, sexagesimal_of(dec))
        source = "OBJCTRA"
    ra_deg, dec_deg = pair
    if ra_deg is None or dec_deg is None or (ra_deg == 0.0 and dec_deg == 0.0) or not -90 <= dec_deg <= 90:
        return
    found.put("ra_deg", ra_deg % 360.0, source)
    found.put("dec_deg", dec_deg, source)


def _color(found: _Found, shape: tuple[int, ...], program: str) -> None:
    cards = found.cards
    if len(shape) == 3:
        return
    raw = next(
        (str(cards[w]).strip().upper() for w in ("BAYERPAT", "CFAIMAGE", "COLORTYP") if isinstance(cards.get(w), str)),
        "",
    )
    source = "BAYERPAT"
    if raw not in PATTERNS and isinstance(cards.get("FILTER"), str) and cards["FILTER"].strip().upper() in PATTERNS:
        raw, source = cards["FILTER"].strip().upper(), "FILTER"
    if raw not in PATTERNS:
        return
    cell = [list(raw[:2]), list(raw[2:])]
    if found.values.get("row_order") == "BOTTOM-UP" and shape and shape[0] % 2 == 0:
        cell = cell[::-1]
    dx, dy = (int(number_of(cards.get(w)) or 0) % 2 for w in ("XBAYROFF", "YBAYROFF"))
    if dy:
        cell = cell[::-1]
    if dx:
        cell = [row[::-1] for row in cell]
    found.put("cfa", "".join(cell[0] + cell[1]), source)


def _from_names(found: _Found, path: PurePath) -> None:
    told = names.facts_of(path)
    for name, value in told.items():
        if found.values.get(name) is None:
            found.put(name, value, "name")
    if found.values.get("object") is None and found.values.get("kind") == "light":
        found.put("object", names.object_of(path), "folder")
    if found.values.get("kind") in ("dark", "bias", "flat-dark"):
        found.values["filter"] = None
    elif found.values.get("filter") is None and found.values.get("cfa") is None:
        found.put("filter", names.filter_of(path, found.values.get("object") or ""), "name")
