"""Headers as programs write them: kinds in other keywords, decimal commas, letters of all languages, shifted mosaics."""

from __future__ import annotations

import numpy as np
import pytest

from tests.whole.nights import SKY, Night, adu, plane, rates, run, stacked, stamp


def observatory(night, keyword, words):
    """All frames in one folder, the kind in a keyword of the program's own."""

    def put(i, kind, data, exposure_s, **cards):
        when = {"EXPTIME": exposure_s, "DATE_OBS": stamp(i), "IMAGETYP": None, keyword: words[kind]}
        night.put("frame", f"kb01-20260310-{i:04d}.fits", adu(data), **{**when, **cards})

    for i in range(7):
        put(i, "light", night.light(), 60.0, OBJECT="Sim 1", FILTER="rp")
    for i in range(3):
        put(20 + i, "flat", night.flat(), 2.0, OBJECT="flat", FILTER="rp")
        put(30 + i, "dark", night.dark(), 60.0)
        put(40 + i, "bias", night.dark(0.0), 0.0)


@pytest.mark.parametrize(
    ("keyword", "words"),
    [
        ("OBSTYPE", {"light": "EXPOSE", "flat": "SKYFLAT", "dark": "DARK", "bias": "BIAS"}),
        ("IMGTYPE", {"light": "object", "flat": "dome flat", "dark": "dark", "bias": "zero"}),
        ("OBS_TYPE", {"light": "SCIENCE", "flat": "TWILIGHT FLAT", "dark": "DARK", "bias": "ZERO"}),
        ("FRAME", {"light": "Light", "flat": "Flat", "dark": "Dark", "bias": "Bias"}),
    ],
)
def test_kinds_in_other_keywords(tmp_path, keyword, words):
    night = Night(tmp_path / "night", 221)
    observatory(night, keyword, words)
    summary, image = stacked(night, tmp_path / "out")
    assert not summary.aside
    assert summary.groups[0].n_used == 7
    found = rates(night, image)
    assert found.std() < 0.02 * found.mean()
    assert np.nanmedian(image) == pytest.approx(60.0 * SKY * night.vignetting.mean(), abs=6)


@pytest.mark.parametrize(
    "folders", [("Flats_Ha", "Darks 300s", "lights_Ha"), ("2026 flat", "my darks", "M1 light frames")]
)
def test_folders_that_tell(tmp_path, folders):
    """No word in the header: the folder's name tells."""
    night = Night(tmp_path / "night", 222)
    night.lights(7, IMAGETYP=None)
    night.darks(4, IMAGETYP=None)
    for i in range(3):
        night.put("flat", f"f{i}.fits", adu(night.flat()), EXPTIME=2.0, DATE_OBS=stamp(i, hour=20), IMAGETYP=None)
    night.darks(3, 2.0, "darkflat")
    for kind, name in zip(("flats", "darks", "lights"), folders, strict=True):
        (night.folder / kind).rename(night.folder / name)
    for i, path in enumerate(sorted(p for name in folders for p in (night.folder / name).iterdir())):
        path.rename(path.with_name(f"img{i:04d}.fits"))
    summary, image = stacked(night, tmp_path / "out")
    assert summary.groups[0].n_used == 7
    found = rates(night, image)
    assert found.std() < 0.02 * found.mean()
    assert np.nanmedian(image) == pytest.approx(60.0 * SKY * night.vignetting.mean(), abs=6)


def test_decimal_commas(tmp_path):
    night = Night(tmp_path / "night", 223)
    night.lights(6, EXPTIME="60,00", CCD_TEMP="-10,0", GAIN="100,0")
    night.darks(4)
    night.darks(4, 10.0)
    summary, image = stacked(night, tmp_path / "out")
    assert summary.groups[0].exposure_s == pytest.approx(360.0)
    found = rates(night, image, vignetted=True) / 60.0
    assert found.std() < 0.02


@pytest.mark.parametrize("code", ["utf-8", "latin-1"])
def test_names_in_letters_of_other_languages(tmp_path, code):
    """Bytes that the standard forbids and people write: names as the user wrote them, in the master and its name."""
    night = Night(tmp_path / "night", 224)
    night.lights(6, OBJECT="ZETA ORI OBJECT", OBSERVER="OBSERVER NAME")
    night.darks(3)
    target, observer = ("ζ Ori" if code == "utf-8" else "Rosé"), "Muñoz"
    for path in (night.folder / "lights").glob("*.fits"):
        raw = path.read_bytes()
        for old, new in ((b"ZETA ORI OBJECT", target.encode(code)), (b"OBSERVER NAME", observer.encode(code))):
            assert raw.count(old) == 1
            raw = raw.replace(old, new.ljust(len(old)))
        path.write_bytes(raw)
    summary, image = stacked(night, tmp_path / "out")
    assert summary.groups[0].name == f"{target.replace(' ', '-')}_L"
    assert summary.groups[0].master.exists()
    assert rates(night, image, vignetted=True).mean() == pytest.approx(60.0, rel=0.03)


@pytest.mark.parametrize(("pattern", "offset"), [("RGGB", (1, 0)), ("RGGB", (0, 1)), ("GRBG", (1, 1))])
def test_a_mosaic_that_begins_elsewhere(tmp_path, pattern, offset):
    """XBAYROFF and YBAYROFF move the pattern; a blue panel's flats do not tint the picture."""
    night = Night(tmp_path / "night", 225)
    y, x = np.mgrid[: night.shape[0], : night.shape[1]]
    letters = np.array([list(pattern[:2]), list(pattern[2:])])
    cell = letters[(y + offset[1]) % 2, (x + offset[0]) % 2]

    def of(red, green, blue):
        return np.select([cell == "R", cell == "G"], [red, green], blue)

    cards = {"ROWORDER": "TOP-DOWN", "XBAYROFF": offset[0], "YBAYROFF": offset[1], "BAYERPAT": pattern, "FILTER": None}
    for i in range(8):
        stars = night.image(*night.rng.uniform(-9, 9, 2)) - SKY
        data = night.expose(night.vignetting * (3 * stars * of(0.5, 1.0, 0.7) + of(5.0, 8.0, 3.0)), 60.0)
        night.put("light", f"l{i}.fits", adu(data), EXPTIME=60.0, DATE_OBS=stamp(i), **cards)
    for i in range(3):
        panel = night.vignetting * of(0.3, 0.7, 1.0) * 9000.0
        when = {"EXPTIME": 2.0, "DATE_OBS": stamp(i, hour=20), "FILTER": None}
        night.put("flat", f"f{i}.fits", adu(night.expose(panel, 2.0)), **when)
    night.darks(3, 2.0, "darkflat")
    night.darks(3)
    summary = run(night, tmp_path / "out")
    assert summary.exit_code == 0
    image = plane(summary.groups[0].master)
    assert image.shape[0] == 3
    sky = np.nanmedian(image, axis=(1, 2))
    assert sky / sky[1] == pytest.approx([5 / 8, 1.0, 3 / 8], rel=0.03)
    sums = [np.median(rates(night, band)) for band in image]
    assert np.array(sums) / sums[1] == pytest.approx([0.5, 1.0, 0.7], rel=0.04)


@pytest.mark.parametrize("narrow", ["Ha", "SII", "B"])
def test_filters_in_names_alone(tmp_path, narrow):
    """No FILTER in any header: names tell, and flats of another filter are not mixed in."""
    night = Night(tmp_path / "night", 226)
    for i in range(7):
        when = {"EXPTIME": 60.0, "DATE_OBS": stamp(i), "FILTER": None, "OBJECT": "M42"}
        night.put("light", f"M42_Light_{narrow}_60s_{i:03d}.fits", adu(night.light()), **when)
    night.darks(4)
    night.darks(3, 2.0, "darkflat")
    own = night.vignetting
    for name, vignetting in ((narrow, own), ("OIII", own[::-1] ** 3)):
        night.vignetting = vignetting
        for i in range(3):
            when = {"EXPTIME": 2.0, "DATE_OBS": stamp(i, hour=20), "FILTER": None}
            night.put("flat", f"Flat_{name}_{i:03d}.fits", adu(night.flat()), **when)
    night.vignetting = own
    summary, image = stacked(night, tmp_path / "out")
    assert summary.groups[0].name == f"M42_{narrow}"
    assert rates(night, image).std() < 0.02 * rates(night, image).mean()
    assert np.nanmedian(image) == pytest.approx(60.0 * SKY * night.vignetting.mean(), abs=6)


def test_frames_that_are_neither_subs_nor_calibration(tmp_path):
    """FOCUS and ARC in the lights' folder are set aside by name; a word that nobody knows is said."""
    night = Night(tmp_path / "night", 227)
    night.lights(7, IMAGETYP="Imaging")
    night.darks()
    for i, word in enumerate(("FOCUS", "Plate-solve", "ARC")):
        night.put("light", f"x{i}.fits", adu(night.light(2.0)), EXPTIME=2.0, DATE_OBS=stamp(30 + i), IMAGETYP=word)
    summary, image = stacked(night, tmp_path / "out")
    assert summary.groups[0].n_used == 7
    assert sorted(path.rpartition("/")[2] for path, _ in summary.aside) == ["x0.fits", "x1.fits", "x2.fits"]
    assert all("neither a sub nor a calibration frame" in reason for _, reason in summary.aside)
    assert any("'Imaging'" in note and "taken for a light" in note for note in summary.notes)
    assert rates(night, image, vignetted=True).mean() == pytest.approx(60.0, rel=0.02)
