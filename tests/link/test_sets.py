"""Sets by distance, meaning of names, guards against over-correction, copies: on frames made of headers alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerar_dask.frames import names
from lerar_dask.frames.frame import Frame, PixelSource
from lerar_dask.frames.header import Header
from lerar_dask.link.match import link_frames
from lerar_dask.link.meaning import camera_classes, filter_key, target_key
from lerar_dask.link.rules import rules_for
from lerar_dask.link.sets import agreeing
from lerar_dask.settings import Link

INTEGERS = PixelSource(layout="plain", hdu=0, offset=2880, dtype=">i2", scale=1.0, zero=32768.0, blank=None)


def frame(name, kind="dark", **fields) -> Frame:
    values = {"camera": "Testcam 1", "gain": 100.0, "exposure_s": 60.0, "object": "M31", **fields}
    header = Header(kind=kind, **values)
    return Frame(path=Path("/n") / name, size=1, mtime_ns=1, header=header, shape=(100, 200))


def sets(frames):
    return [{f.path.name for f in part} for part in agreeing(frames, rules_for("dark", Link()))]


def test_long_exposures_are_not_one_set():
    frames = [frame(f"{t}_{i}", exposure_s=float(t)) for t in (60, 300, 301, 600) for i in range(2)]
    assert sorted(map(len, sets(frames))) == [2, 2, 4]


def test_no_border_between_near_temperatures():
    assert sets([frame("a", sensor_temp_c=-14.9), frame("b", sensor_temp_c=-15.1)]) == [{"a", "b"}]


def test_the_sensor_goes_before_the_set_point():
    warm, cold = frame("a", sensor_temp_c=28.0, set_temp_c=-10.0), frame("b", sensor_temp_c=-10.0, set_temp_c=-10.0)
    assert len(sets([warm, cold])) == 2


@given(st.lists(st.floats(-40, 40), min_size=1, max_size=30), st.randoms())
def test_members_agree_and_order_does_not_matter(temperatures, random):
    frames = [frame(f"{i:02d}", sensor_temp_c=t) for i, t in enumerate(temperatures)]
    found = sets(frames)
    for part in found:
        own = [temperatures[int(name)] for name in part]
        assert max(own) - min(own) <= 2.0 + 1e-9
    shuffled = frames[:]
    random.shuffle(shuffled)
    assert sorted(map(sorted, sets(shuffled))) == sorted(map(sorted, found))


def test_rotator_angles_go_round():
    flats = [frame(str(a), "flat", rotator_deg=a) for a in (358.0, 1.0, 180.0)]
    parts = [{f.path.name for f in p} for p in agreeing(flats, rules_for("flat", Link()))]
    assert sorted(map(sorted, parts)) == [["1.0", "358.0"], ["180.0"]]


@pytest.mark.parametrize(("a", "b"), [("M 81", "m-81"), ("Messier 81", "M81"), ("NGC 7000", "ngc7000")])
def test_targets_that_are_one(a, b):
    assert target_key(a) == target_key(b)


@pytest.mark.parametrize(("a", "b"), [("M31-1", "M311"), ("M31-1", "M31-2"), ("M 3", "M 31")])
def test_targets_that_are_not(a, b):
    assert target_key(a) != target_key(b)


def test_filters():
    assert {filter_key(f) for f in ("Ha", "HA", "H-alpha", "h_alpha", "Baader Ha")} == {"ha"}
    assert filter_key("Lum") == filter_key("L") != filter_key("Ha 3nm") != filter_key("Ha")


def test_cameras_of_one_kind_are_one_and_others_are_not():
    classes = camera_classes(["ZWO ASI2600MM Pro", "ASI2600MM Pro", "ASI294MC", None])
    assert classes["ZWO ASI2600MM Pro"] == classes["ASI2600MM Pro"] != classes["ASI294MC"]
    assert classes[None] == ""


def test_one_field_is_one_group_named_by_most():
    lights = [frame(f"a{i}", "light", object="M 81", filter="Ha") for i in range(3)]
    lights += [frame(f"b{i}", "light", object="M81", filter="HA") for i in range(2)]
    (group,) = link_frames(lights, Link()).groups
    assert (group.name, len(group.frames)) == ("M-81_Ha", 5)
    assert any("M 81" in note and "M81" in note for note in group.notes)


def test_no_flat_for_a_light_that_keeps_its_pedestal():
    flats = [frame(f"f{i}", "flat", exposure_s=2.0, gain=0.0) for i in range(3)]
    bias = [frame(f"b{i}", "bias", exposure_s=0.0, gain=0.0) for i in range(3)]
    links = link_frames([frame("l", "light"), *flats, *bias], Link())
    link = links.of[Path("/n/l")]
    assert link.flat is None
    assert any("over-correct the corners" in note for note in link.notes)


def test_a_flat_dark_serves_as_bias():
    flats = [frame(f"f{i}", "flat", exposure_s=2.0) for i in range(3)]
    below = [frame(f"d{i}", "flat-dark", exposure_s=2.0) for i in range(3)]
    link = link_frames([frame("l", "light"), *flats, *below], Link()).of[Path("/n/l")]
    assert link.flat is not None
    assert "serves as bias" in link.bias.reason


def test_what_is_done_is_not_done_again():
    night = [frame("d", "dark"), frame("f", "flat", exposure_s=2.0), frame("b", "bias", exposure_s=0.0)]
    link = link_frames([frame("l", "light", calibrated="BDF"), *night], Link()).of[Path("/n/l")]
    assert (link.dark, link.flat, link.bias) == (None, None, None)
    assert any("CALSTAT BDF" in note for note in link.notes)
    only_bias = link_frames([frame("l", "light", calibrated="B"), *night], Link()).of[Path("/n/l")]
    assert (only_bias.dark is not None, only_bias.bias is not None, only_bias.dark_less_bias) == (True, True, True)


def test_a_sub_is_its_exposure():
    raw = replace(frame("light_1.fits", "light", start_unix=1e9, sources={"start": "DATE-OBS"}), pixels=INTEGERS)
    copies = [replace(raw, path=Path("/n") / f"{prefix}light_1.fits") for prefix in ("pp_", "r_pp_", "bkg_pp_")]
    other = replace(raw, path=Path("/n/light_2.fits"), header=replace(raw.header, start_unix=1e9 + 0.002))
    links = link_frames([*copies, raw, other], Link())
    assert sorted(f.path.name for g in links.groups for f in g.frames) == ["light_1.fits", "light_2.fits"]
    assert {f.path.name for f, reason in links.aside if "the same exposure as light_1.fits" in reason} == {
        c.path.name for c in copies
    }


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("n/Flats_Ha/x.fits", "flat"),
        ("n/Darks 300s/x.fits", "dark"),
        ("n/lights_Ha/x.fits", "light"),
        ("n/Dark Shark Nebula/x.fits", None),
        ("n/dark flats/x.fits", "flat-dark"),
        ("n/M 31_sub/x.fits", "light"),
    ],
)
def test_words_of_folders(path, kind):
    assert names.kind_of(Path(path)) == kind


def test_a_pin_says_what_frames_are(tmp_path):
    pins = tmp_path / "pins.toml"
    pins.write_text('[[kind]]\nframe = "*/f*"\nis = "flat"\n[[apart]]\nlight = "*/b*"\nname = "second"\n')
    frames = [frame("f1", "light"), frame("a1", "light"), frame("b1", "light"), frame("d", "dark")]
    links = link_frames(frames, Link(pins=pins))
    assert sorted(f.path.name for g in links.groups for f in g.frames) == ["a1", "b1"]
    assert len(links.groups) == 2
