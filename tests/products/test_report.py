"""The report opens in a browser without network and without errors, and foreign text stays text."""

import json
import re
import shutil
import subprocess
from datetime import datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from lerar_dask.products.plots import plots
from lerar_dask.products.report import GroupReport, ReportData, StageTiming, write_report
from lerar_dask.products.report_maps import Surface, map_views, surface_views

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=2>'\"{{7*7}}"
CHROMIUM = shutil.which("chromium")


def frames_of(n, nights=1):
    rng = np.random.default_rng(1)
    start = datetime(2025, 10, 3, 20, 11, 4)
    rows = []
    for i in range(n):
        when = start + timedelta(days=i * nights // n, seconds=60 * (i % max(1, n // nights)))
        aside = i % 20 == 7
        rows.append(
            {
                "path": f"/night/sub {i:05d}.fits",
                "id": f"{i:032x}",
                "group": "M31_L",
                "kind": "light",
                "fate": "aside" if aside else "used",
                "reason": f"clouds: {i} stars" if aside else "",
                "date_obs": when.isoformat(),
                "exposure_s": 60.0,
                "background_adu": float(rng.normal(500, 5)),
                "noise_adu": float(rng.normal(12, 0.2)),
                "fwhm_px": float(rng.normal(3, 0.1)),
                "eccentricity": 0.4,
                "n_stars": int(rng.integers(200, 300)),
                "scale": None if aside else float(rng.normal(1, 0.02)),
                "weight": None if aside else 1.0,
                "gain": None,
            }
        )
    return rows


def data_of(frames, **more):
    y, x = np.mgrid[:6, :8]
    group = GroupReport(
        name="M31_L",
        n_used=sum(f["fate"] == "used" for f in frames),
        n_aside=sum(f["fate"] == "aside" for f in frames),
        exposure_s=3600.0,
        facts={"Noise": "1.3 ADU"},
        maps=map_views(np.full((30, 40), 7.0), np.full((30, 40), 0.01), np.full((30, 40), np.nan), bottom_up=False),
        surfaces=surface_views(
            [Surface(name=f["path"], values=500.0 + i * x + y) for i, f in enumerate(frames[:160])],
            n_all=len(frames),
            bottom_up=False,
        ),
        links=["dark: master dark 60 s, same temperature"],
        **more,
    )
    return ReportData(
        title="M31",
        created="2025-10-04T09:00:00+00:00",
        frames=frames,
        groups=[group, GroupReport(name="M31_R", n_used=0, n_aside=3, problem="no sub could be registered")],
        stages=[StageTiming(name="ingest", n_tasks=3, wall_s=4.0, task_s=7.5, pixels=36_000_000, peak_bytes=2**30)],
        settings={"integrate": {"reject": "auto"}, "register": {"align_to": None}},
        versions={"lerar": "0.1.0"},
        machine={"cpu": "abacus"},
        notes=["no bias was found"],
    )


def open_in_browser(path, tmp_path, script=""):
    """Console lines and body text of a page in which `script` ran after everything was drawn."""
    probe = tmp_path / "probe.html"
    code = f"<script>addEventListener('load', () => setTimeout(() => {{ {script} }}, 1500));</script></body>"
    probe.write_text(path.read_text().replace("</body>", code))
    quiet = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        *quiet.split(),
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1400,2000",
        "--virtual-time-budget=6000",
        "--enable-logging=stderr",
        "--dump-dom",
        probe.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_page_names_no_address_that_a_browser_would_fetch(tmp_path):
    Image.new("L", (300, 200), 40).save(tmp_path / "p.png")
    write_report(tmp_path / "report.html", data_of(frames_of(60), preview=tmp_path / "p.png"))
    page = (tmp_path / "report.html").read_text()
    head = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert not re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?!data:)[^\s>\"')]+", head)
    assert "default-src 'none'" in page
    assert page.count("data:image/jpeg") == 1


def test_numbers_and_reasons_are_on_the_page(tmp_path):
    frames = frames_of(60)
    write_report(tmp_path / "report.html", data_of(frames))
    page = (tmp_path / "report.html").read_text()
    for text in (
        "no sub could be registered",
        "no bias was found",
        f"<dt>Subs in masters</dt><dd>{sum(f['fate'] == 'used' for f in frames)}</dd>",
        "<dt>Masters</dt><dd>1</dd>",
        "<dt>Total exposure</dt><dd>1 h 00 min</dd>",
        "<dt>Exposure</dt><dd>1 h 00 min</dd>",
        "1.0 GiB",
        "same temperature",
        "abacus",
    ):
        assert text in page
    assert all(f["path"] in page for f in frames)


def test_foreign_text_stays_text(tmp_path):
    frames = frames_of(5)
    for key in ("path", "reason", "group", "fate", "date_obs"):
        frames[1][key] = HOSTILE
    data = ReportData(
        title=HOSTILE,
        frames=frames,
        groups=[
            GroupReport(name=HOSTILE, n_used=1, n_aside=0, problem=HOSTILE, links=[HOSTILE], facts={HOSTILE: HOSTILE})
        ],
        notes=[HOSTILE],
        settings={HOSTILE: {HOSTILE: HOSTILE}},
        versions={"lerar": HOSTILE},
    )
    write_report(tmp_path / "report.html", data)
    page = (tmp_path / "report.html").read_text()
    assert "<img src=x" not in page
    assert "<script>window.pwned" not in page
    if CHROMIUM:
        dom, _ = open_in_browser(tmp_path / "report.html", tmp_path, "document.title = 'pwned ' + window.pwned")
        assert "<title>pwned undefined</title>" in dom


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_frames(tmp_path, n):
    write_report(tmp_path / "report.html", data_of(frames_of(n)))
    assert (tmp_path / "report.html").stat().st_size > 5000


def test_frames_without_any_number(tmp_path):
    frames = [{"path": "/a.fits", "fate": "aside", "reason": "not a FITS file", "group": None, "date_obs": None}]
    write_report(tmp_path / "report.html", ReportData(title="x", frames=frames, groups=[]))
    assert "not a FITS file" in (tmp_path / "report.html").read_text()
    assert plots(frames) == ("", [], "")


def test_ten_thousand_frames_stay_below_20_mb(tmp_path):
    frames = frames_of(10_000, nights=40)
    write_report(tmp_path / "report.html", data_of(frames))
    assert (tmp_path / "report.html").stat().st_size < 20e6


@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
@pytest.mark.parametrize(("n", "nights"), [(60, 1), (3000, 5)])
def test_page_works_in_a_browser(tmp_path, n, nights):
    frames = frames_of(n, nights)
    write_report(tmp_path / "report.html", data_of(frames))
    script = """
        const rows = () => [...document.querySelectorAll('#table tbody tr')].filter(r => r.cells.length > 1);
        const source = Bokeh.documents[0].get_model_by_name('subs');
        const pause = () => new Promise(done => setTimeout(done, 100));
        (async () => {
            const found = {plots: document.querySelectorAll('.plots > div > div').length, rows: rows().length};
            source.selected.indices = [7, 9];
            await pause();
            found.selected = rows().map(r => r.cells[0].textContent);
            source.selected.indices = [];
            await pause();
            rows()[3].click();
            found.picked = [...source.selected.indices];
            source.selected.indices = [];
            await pause();
            document.querySelector('[data-fate=aside]').click();
            found.aside = document.getElementById('count').textContent;
            document.querySelector('[data-fate=""]').click();
            const head = document.querySelector('th[data-key=n_stars]');
            head.click();
            found.least = rows()[0].cells[head.cellIndex].textContent;
            head.click();
            found.most = rows()[0].cells[head.cellIndex].textContent;
            const search = document.getElementById('search');
            search.value = 'SUB 00011';
            search.dispatchEvent(new Event('input'));
            found.searched = rows().length;
            const loads = performance.getEntriesByType('resource').map(entry => entry.name);
            found.fetched = loads.filter(name => !/^(data|blob):/.test(name));
            document.title = JSON.stringify(found);
        })();
    """
    dom, console = open_in_browser(tmp_path / "report.html", tmp_path, script)
    found = json.loads(re.search(r"<title>(.*?)</title>", dom).group(1))
    stars = [f["n_stars"] for f in frames]
    assert found["plots"] == 7
    assert 15 < found["rows"] < 60
    assert found["selected"] == [f["path"].split("/")[-1] for f in (frames[7], frames[9])]
    assert found["picked"] == [3]
    assert found["aside"].startswith(f"{n // 20} of {n}")
    assert [int(found["least"]), int(found["most"])] == [min(stars), max(stars)]
    assert found["searched"] == 1
    errors = [line for line in console if re.search(r"error|refused|violat|fail", line, re.I)]
    assert not errors
    assert not found["fetched"]
