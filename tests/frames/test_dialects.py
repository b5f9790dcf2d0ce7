"""Every capture program's header, real ones, against what a person reads in its cards."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from lerar_dask.frames.dialects import normalize_header
from lerar_dask.frames.fits import _parse

FLAT = dict(kind="flat", is_master=True, exposure_s=1.28, gain=120, filter="HaOIII", cfa="RGGB", n_subs=30)
EXPECTED = {
    "app_2_master_flat": FLAT,
    "app_master_light_comma_decimals": dict(kind="light", is_stack=True, is_master=False, exposure_s=900, cfa=None),
    "apt_light_no_bayerpat": dict(kind="light", exposure_s=240, set_temp_c=-15, cfa=None, ra_deg=23.75, object="M33"),
    "asiair_light_osc": dict(
        kind="light", gain=100, offset=50, filter=None, cfa="RGGB", object="M 31", start="2025-08-25T05:52:13.488"
    ),
    "asiair_master_bias_only_stackcnt_tells": dict(kind="bias", is_master=True, n_subs=100, filter=None),
    "dwarf2_light": dict(
        kind="light", exposure_s=15, binning=(2, 2), cfa="GBRG", ra_deg=None, start="2023-06-10T21:38:19.442"
    ),
    "dwarf3_factory_dark_bayerpat_only": dict(kind="unknown", exposure_s=None, cfa="RGGB", camera=None),
    # DATE-OBS of a Dwarf 3 is the end of the exposure.
    "dwarf3_light_no_imagetyp": dict(
        sensor_temp_c=16, object="IC 434", filter="Astro", start="2025-10-18T04:58:26.401", ra_deg=85.28743
    ),
    "dwarf3_stack_16bit_rgb": dict(exposure_s=2580, cfa=None, object="IC 434"),
    "dwarf3_user_dark_no_imagetyp": dict(kind="unknown", exposure_s=60, filter=None, ra_deg=None, sensor_temp_c=20),
    "indi_2026_light_osc_binned": dict(kind="light", binning=(2, 2), cfa="RGGB", pixel_um=5.8, row_order="TOP-DOWN"),
    "indi_ekos_2018_frame_only_dateobs_Z": dict(
        kind="light", filter="Ha", start="2018-10-13T21:12:41.560", object="ced214", dec_deg=67.20014
    ),
    "maxim_5_24_itelescope_calibrated_pedestal": dict(
        kind="light", pedestal_adu=100, calibrated="BDF", filter="SII", ra_deg=275.2005, dec_deg=-16.183
    ),
    # 18:33 at UTC-7, 271 K.
    "microobservatory_local_time_kelvin": dict(sensor_temp_c=-2.15, start="2017-12-20T01:33:43.317"),
    "nina_1_10_light_osc": dict(kind="light", offset=30, cfa="RGGB", ra_deg=None, dec_deg=None, object="MarsM45"),
    "nina_3_light_mono": dict(kind="light", filter="S", cfa=None, ra_deg=253.84137, offset=0, pier_side="east"),
    "nina_bias_osc_with_dark_slot_filter": dict(kind="bias", is_master=False, filter=None, exposure_s=1e-4),
    "seestar_s30pro_sub_partial": dict(kind="light", filter="IRCUT", cfa="GRBG", camera="imx585"),
    "seestar_s50_stack_rgb_still_bayerpat": dict(is_stack=True, n_subs=614, cfa=None, exposure_s=10),
    "seestar_s50_sub_altaz": dict(kind="light", is_stack=False, cfa="GRBG", filter="IRCUT", object="M 101"),
    "seestar_s50_sub_eq_lp": dict(kind="light", is_stack=False, cfa="GRBG", filter="LP", object="Sadr"),
    "sgp_light": dict(
        kind="light", exposure_s=30, set_temp_c=-18, scale_arcsec_px=0.65415, site_lat_deg=51, site_lon_deg=3
    ),
    "sharpcap_3_single_no_imagetyp": dict(kind="light", exposure_s=2, sensor_temp_c=12.7, is_stack=False),
    "sharpcap_4_1_livestack_rgb32": dict(is_stack=True, set_temp_c=0, offset=8, e_per_adu=0.1226, cfa=None),
    "siril_1_4_master_bias_keeps_object": dict(kind="bias", is_master=True, n_subs=10, is_stack=False),
    "theskyx_dark": dict(kind="dark", exposure_s=120, binning=(2, 2), is_master=False, sensor_temp_c=-20.02),
    "wbpp_master_light": dict(kind="light", is_stack=True, is_master=False, n_subs=10, filter=None),
}
PLACES = {
    "dwarf2_light": "night/lights/a.fits",
    "sharpcap_3_single_no_imagetyp": "night/Lights/a.fits",
    "apt_light_no_bayerpat": "M33/Light/a.fits",
}
"""Where the header is silent, the folder speaks."""


def normalized(text: str, path: str = "/n/a.fits"):
    cards = _parse("".join(line[:80].ljust(80) for line in text.splitlines()))
    n = cards.get("NAXIS", 0)
    return normalize_header(cards, PurePath(path), shape=tuple(cards[f"NAXIS{i}"] for i in range(n, 0, -1)))


def header(**cards):
    return normalize_header(cards, PurePath("/n/a.fits"), shape=(100, 100))


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_real_header(name, shared_data):
    found = normalized((shared_data / "headers" / f"{name}.hdr").read_text(), PLACES.get(name, "/n/a.fits"))
    for field, value in EXPECTED[name].items():
        got = getattr(found, field)
        assert got == (pytest.approx(value) if isinstance(value, int | float) else value), field


def test_every_real_header_has_expectations(shared_data):
    assert {p.stem for p in (shared_data / "headers").glob("*.hdr")} == set(EXPECTED)


@pytest.mark.parametrize(
    ("word", "kind", "master"),
    [
        ("Light Frame", "light", False),
        ("DARKFLAT", "flat-dark", False),
        ("Dark Flat", "flat-dark", False),
        ("Flat Dark", "flat-dark", False),
        ("Master Dark", "dark", True),
        ("masterBias", "bias", True),
        ("zero", "bias", False),
        ("Sky Flat", "flat", False),
        ("something", "unknown", False),
    ],
)
def test_kind(word, kind, master):
    found = header(IMAGETYP=word)
    assert (found.kind, found.is_master) == (kind, master)


@pytest.mark.parametrize(
    ("order", "dx", "dy", "pattern"),
    [
        ("TOP-DOWN", 0, 0, "RGGB"),
        ("BOTTOM-UP", 0, 0, "GBRG"),
        ("TOP-DOWN", 1, 0, "GRBG"),
        ("TOP-DOWN", 0, 1, "GBRG"),
        ("TOP-DOWN", 1, 1, "BGGR"),
        ("BOTTOM-UP", 0, 1, "RGGB"),
    ],
)
def test_pattern_as_it_lies(order, dx, dy, pattern):
    assert header(BAYERPAT="RGGB", ROWORDER=order, XBAYROFF=dx, YBAYROFF=dy).cfa == pattern


@pytest.mark.parametrize(
    ("stamp", "extra", "start"),
    [
        ("2025-09-10T03:32:01.7364051", "", "2025-09-10T03:32:01.736"),
        ("2025-09-10", "03:32:01", "2025-09-10T03:32:01.000"),
        ("2025-09-10T03:32:01+02:00", "", "2025-09-10T01:32:01.000"),
        ("2025-02-30T03:32:01", "", None),
        ("31/12/98", "", "1998-12-31T00:00:00.000"),
    ],
)
def test_start(stamp, extra, start):
    assert header(**{"DATE-OBS": stamp, "TIME-OBS": extra}).start == start


def test_night_is_the_evening_at_the_site():
    cards = {"DATE-OBS": "2025-01-02T02:00:00"}
    assert header(**cards).night == "2025-01-01"
    assert header(**cards, SITELONG=150.0).night == "2025-01-02"
    assert header(**cards, SITELONG=-100.0).night == "2025-01-01"


def test_numbers_in_words():
    found = header(EXPTIME="9,5 s", CAMTEMP="11 C", GAIN="inf", EXPOSURE=9.5)
    assert (found.exposure_s, found.sensor_temp_c, found.gain) == (9.5, 11.0, None)


def test_disagreeing_exposures_are_told():
    assert "differ" in header(EXPTIME=10.0, EXPOSURE=20.0).warnings[0]
    assert not header(EXPTIME=10.0, EXPOSURE=10.0).warnings


def test_declination_minus_zero():
    assert header(OBJCTRA="01 00 00", OBJCTDEC="-00 30 00").dec_deg == -0.5


def test_filter_that_is_a_pattern():
    found = header(FILTER="RGGB")
    assert (found.filter, found.cfa) == (None, "RGGB")
