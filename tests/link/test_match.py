"""Links on frames made of headers alone: the traps that make stacks wrong in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from lerar_dask.frames.frame import Frame
from lerar_dask.frames.header import Header
from lerar_dask.link.match import link_frames
from lerar_dask.settings import Link

BASE = dict(camera="ZWO ASI294MC Pro", binning=(1, 1), gain=120.0, offset=30.0, sensor_temp_c=-10.0, night="2026-03-14")


def frame(name, kind, *, shape=(100, 200), problem="", **fields) -> Frame:
    values = {**BASE, "kind": kind, "object": "M31" if kind == "light" else None, **fields}
    return Frame(path=Path("/n") / name, size=1, mtime_ns=1, header=Header(**values), shape=shape, problem=problem)


def several(name, kind, n=3, **fields) -> list[Frame]:
    return [frame(f"{name}_{i}.fits", kind, **fields) for i in range(n)]


def light(**fields) -> list[Frame]:
    return [frame("light.fits", "light", **{"exposure_s": 300.0, "filter": "L", **fields})]


def link(*sets, **settings):
    links = link_frames([f for s in sets for f in s], Link(**settings))
    return links, links.of[Path("/n/light.fits")]


BIAS = several("bias", "bias", exposure_s=0.001)
DARK = several("dark", "dark", exposure_s=300.0)
FLAT = several("flat", "flat", exposure_s=2.0, filter="L")


def test_all_that_fits_is_taken():
    links, one = link(light(), BIAS, DARK, FLAT)
    assert {one.dark.master, one.flat.master, one.bias.master} == set(links.masters)
    assert one.dark_scale == 1.0
    assert one.dark.reason == "equal in all that is known"
    assert links.masters[one.flat.master].pedestal == one.bias.master
    assert len(links.masters[one.dark.master].frames) == 3
    assert one.notes == ()


def test_dark_of_another_exposure_is_not_used_without_bias():
    _, one = link(light(), several("dark", "dark", exposure_s=60.0))
    assert one.dark is None
    assert any("cannot be scaled" in note and "60 s" in note for note in one.notes)


def test_dark_of_another_exposure_is_scaled_with_bias():
    _, one = link(light(), BIAS, several("dark", "dark", exposure_s=600.0))
    assert one.dark_scale == 0.5
    assert "600 s for lights of 300 s" in one.dark.reason


def test_scaling_may_be_forbidden():
    _, one = link(light(), BIAS, several("dark", "dark", exposure_s=600.0), scale_darks=False)
    assert (one.dark, one.dark_scale) == (None, 1.0)


def test_dark_of_the_exposure_goes_before_one_to_scale():
    _, one = link(light(), BIAS, several("long", "dark", 9, exposure_s=600.0), DARK)
    assert (one.dark_scale, "300s" in one.dark.master) == (1.0, True)


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("gain", 200.0, "gain 200 for 120"),
        ("offset", 10.0, "offset 10 for 30"),
        ("sensor_temp_c", 15.0, "temperature 15 C for -10 C"),
        ("binning", (2, 2), "binning 2x2 for 1x1"),
        ("camera", "QHY600M", "camera"),
        ("readout_mode", "Fast", "readout mode"),
        ("shape", (100, 100), "size 100x100 for 200x100"),
    ],
)
def test_far_dark_is_not_used_and_the_light_says_why(field, value, word):
    _, one = link(light(readout_mode="Slow"), several("dark", "dark", exposure_s=300.0, **{field: value}))
    assert one.dark is None
    assert any(word in note for note in one.notes)


def test_a_near_temperature_is_used_with_a_word():
    _, one = link(light(), several("dark", "dark", exposure_s=300.0, sensor_temp_c=-5.0))
    assert "temperature -5 C for -10 C: nearest there is" in one.dark.reason


def test_unknown_is_not_different():
    _, one = link(light(), several("dark", "dark", exposure_s=300.0, gain=None, offset=None, sensor_temp_c=None))
    assert one.dark is not None


def test_known_goes_before_unknown():
    vague = several("vague", "dark", 20, exposure_s=300.0, gain=None)
    links, one = link(light(), vague, DARK)
    assert links.masters[one.dark.master].sample.header.gain == 120.0
    assert any("dark" in miss for miss in one.dark.near_misses)


def test_flat_without_bias_is_refused():
    links, one = link(light(), FLAT)
    assert one.flat is None
    assert [f.path for f, reason in links.aside if "keeps its pedestal" in reason] == [f.path for f in FLAT]


def test_flat_dark_goes_before_bias():
    links, one = link(light(), BIAS, FLAT, several("fd", "flat-dark", exposure_s=2.0))
    assert links.masters[links.masters[one.flat.master].pedestal].kind == "flat-dark"


def test_flat_dark_of_another_exposure_is_passed_over():
    links, one = link(light(), BIAS, FLAT, several("fd", "flat-dark", exposure_s=20.0))
    assert links.masters[links.masters[one.flat.master].pedestal].kind == "bias"


def test_dark_of_the_flats_exposure_serves():
    links, one = link(light(), FLAT, DARK, several("short", "dark", exposure_s=2.0))
    assert links.masters[one.flat.master].pedestal_reason == "dark of its exposure"
    assert links.masters[one.dark.master].sample.header.exposure_s == 300.0


@pytest.mark.parametrize(("filter_", "fits"), [("L", True), ("l", True), ("R", False), ("Ha", False)])
def test_flat_of_the_filter(filter_, fits):
    _, one = link(light(), BIAS, several("flat", "flat", exposure_s=2.0, filter=filter_))
    assert (one.flat is not None) == fits


def test_flats_gain_may_differ_from_the_lights():
    bias = several("bias0", "bias", exposure_s=0.001, gain=0.0)
    links, one = link(light(), DARK, bias, several("flat", "flat", exposure_s=2.0, filter="L", gain=0.0))
    assert one.flat is not None
    assert links.masters[one.flat.master].pedestal == "bias_g0"


def test_flat_of_the_nearest_night():
    nights = ("2026-03-01", "2026-03-13", "2026-04-20")
    flats = [f for n in nights for f in several(f"flat{n}", "flat", exposure_s=2.0, filter="L", night=n)]
    links, one = link(light(), BIAS, flats)
    assert links.masters[one.flat.master].sample.header.night == "2026-03-13"
    assert sum(s.kind == "flat" for s in links.masters.values()) == 3


def test_flat_of_the_rotator_angle():
    turned = several("turned", "flat", 9, exposure_s=2.0, filter="L", rotator_deg=90.0)
    straight = several("straight", "flat", exposure_s=2.0, filter="L", rotator_deg=359.0)
    links, one = link(light(rotator_deg=1.0), BIAS, turned, straight)
    assert links.masters[one.flat.master].sample.header.rotator_deg == 359.0


def test_masters_given_need_no_frames():
    ready = [
        frame("md.fits", "dark", is_master=True, exposure_s=300.0),
        frame("mf.fits", "flat", is_master=True, exposure_s=2.0, filter="L"),
    ]
    links, one = link(light(), ready)
    assert one.dark.master.startswith("master-dark")
    spec = links.masters[one.flat.master]
    assert (spec.ready, spec.frames, spec.pedestal, spec.paths) == (ready[1], (), None, [ready[1].path])
    assert "a master of yours" in links.explain()[0]["lines"][0]


def test_sets_are_not_mixed():
    links, _ = link(light(), DARK, several("cold", "dark", exposure_s=300.0, sensor_temp_c=-20.0), BIAS)
    assert sorted(len(s.frames) for s in links.masters.values()) == [3, 3, 3]


def test_groups_by_target_filter_and_size():
    lights = [
        frame("a", "light", filter="L"),
        frame("b", "light", filter="R"),
        frame("c", "light", filter="R", object="M 42/../x"),
        frame("d", "light", filter="L", shape=(50, 60)),
        frame("e", "unknown", filter="R", object="M31", exposure_s=10.0),
    ]
    groups = {g.name: [f.path.name for f in g.frames] for g in link_frames(lights, Link()).groups}
    assert sum(map(len, groups.values())) == 5
    assert groups["M31_R"] == ["b", "e"]
    assert len(groups) == 4
    assert all("/" not in name for name in groups)


def test_results_and_the_unknown_are_set_aside():
    frames = [
        frame("s", "light", is_stack=True, n_subs=40),
        frame("u", "unknown"),
        frame("p", "light", problem="the file is empty"),
    ]
    reasons = {f.path.name: reason for f, reason in link_frames(frames, Link()).aside}
    assert "of 40 subs" in reasons["s"]
    assert "what kind" in reasons["u"]
    assert reasons["p"] == "the file is empty"
    assert not link_frames(frames[1:2], Link(default_kind="light")).aside


def test_order_of_the_files_does_not_matter():
    frames = [*light(), *BIAS, *DARK, *FLAT, *several("d2", "dark", exposure_s=300.0, night="2026-03-15")]
    assert link_frames(frames, Link()) == link_frames(frames[::-1], Link())


def test_explained_in_words():
    links, _ = link(light(), BIAS, several("dark", "dark", exposure_s=600.0), FLAT)
    (row,) = links.explain()
    assert (row["group"], row["n_lights"]) == ("M31_L", 1)
    assert "scaled by 0.5" in row["lines"][0]
    assert "less bias" in row["lines"][1]
