"""A real Slurm on this machine: the bits of one run from jobs over TLS, from ranks of srun, from a job array; jobs killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lerar_dask.errors import LerarError
from lerar_dask.pipeline import stack
from lerar_dask.runtime.events import Bus, TaskFinished
from lerar_dask.settings import Settings
from tests.whole.nights import Night, adu, stamp
from tests.whole.test_schedulers import fingerprint

TESTBED = Path(__file__).parents[2] / "scripts" / "slurm-testbed"
JOBS = {"scheduler": "slurm", "jobs": 2, "job_cores": 1, "job_memory": "2GiB", "walltime": "10", "interface": "lo"}

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("sbatch") is None,
    reason="needs root and Debian's slurmctld, slurmd, slurm-client, munge",
)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm") / "bed"
    started = subprocess.run([sys.executable, TESTBED, "start", folder], capture_output=True, text=True)
    assert started.returncode == 0, started.stderr
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    yield
    subprocess.run([sys.executable, TESTBED, "stop", folder], check=True)
    if before is None:
        del os.environ["SLURM_CONF"]
    else:
        os.environ["SLURM_CONF"] = before


def jobs_here() -> list[str]:
    told = subprocess.run(["squeue", "-h", "-o", "%A", "-t", "R"], capture_output=True, text=True)
    return told.stdout.split()


def workers_here() -> list[int]:
    """Processes that are workers under a nanny."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            above = Path(f"/proc/{parent}/cmdline").read_bytes()
        except OSError:
            continue
        if b"spawn_main" in words and b"dask_worker" in above:
            found.append(int(folder.name))
    return found


def test_the_same_bits_though_a_job_and_a_worker_are_killed(slurm, small_night, small_bits, tmp_path):
    killed = []

    def kill(event):
        if not isinstance(event, TaskFinished) or event.step != "ingest":
            return
        if not killed:
            killed.append(jobs_here()[0])
            subprocess.run(["scancel", killed[0]], check=True)
        elif len(killed) == 1 and (workers := workers_here()):
            killed.append(workers[-1])
            os.kill(workers[-1], signal.SIGKILL)

    out = tmp_path / "out here"
    summary = stack([small_night], out, Settings.of(report=False, **JOBS), bus=Bus([kill]))
    assert killed
    assert (summary.exit_code, summary.n_failed) == (0, 0)
    assert fingerprint(out) == small_bits
    assert not jobs_here()
    assert not list(out.glob(".cluster-*")), "certificates and logs are gone"
    assert not list(out.rglob("*.partial"))


def test_a_job_at_its_walltime(slurm, small_night, small_bits, tmp_path):
    """Slurm ends it in the middle of a step; another one takes its place."""
    ended = []

    def shorten(event):
        if isinstance(event, TaskFinished) and event.step == "ingest" and not ended:
            ended.append(jobs_here()[0])
            subprocess.run(["scontrol", "update", f"JobId={ended[0]}", "TimeLimit=1"], check=True)
            until = time.monotonic() + 180  # Slurm counts in minutes, and looks once in half a minute
            while ended[0] in jobs_here() and time.monotonic() < until:
                time.sleep(0.5)

    out = tmp_path / "out"
    summary = stack([small_night], out, Settings.of(report=False, **JOBS), bus=Bus([shorten]))
    told = subprocess.run(["scontrol", "show", "job", *ended], capture_output=True, text=True, check=True).stdout
    assert "JobState=TIMEOUT" in told
    assert (summary.exit_code, summary.n_failed) == (0, 0)
    assert fingerprint(out) == small_bits
    assert not jobs_here()


def test_filters_cameras_and_a_group_that_fails_in_one_call(slurm, tmp_path):
    """Each master has the bits that threads give it; what fails is told, and stops no other."""
    night = Night(tmp_path / "night", 41)
    night.lights(5)
    night.darks()
    night.flats()
    for i in range(5):
        night.put("light", f"red_{i}.fits", adu(night.light()), FILTER="R", EXPTIME=60.0, DATE_OBS=stamp(50 + i))
        night.put("flat", f"red_{i}.fits", adu(night.flat()), FILTER="R", EXPTIME=2.0, DATE_OBS=stamp(i, hour=20))
    other = Night(tmp_path / "night", 42, shape=(300, 460))
    for i in range(5):
        camera = {"INSTRUME": "Testcam 2", "OBJECT": "Sim 2", "EXPTIME": 60.0, "DATE_OBS": stamp(90 + i)}
        other.put("light", f"other_{i}.fits", adu(other.light()), **camera)
    for i in range(3):
        clouds = adu(night.expose(40.0, 60.0))
        night.put("light", f"cloud_{i}.fits", clouds, OBJECT="Sim 3", EXPTIME=60.0, DATE_OBS=stamp(130 + i))
    plain = stack([night.folder], tmp_path / "plain", Settings.of(report=False), bus=Bus())
    jobs = stack([night.folder], tmp_path / "jobs", Settings.of(report=False, **JOBS), bus=Bus())
    assert plain.exit_code == jobs.exit_code == 1
    told = [sorted((g.name, g.n_used, bool(g.problem)) for g in summary.groups) for summary in (plain, jobs)]
    assert told[0] == told[1]
    assert [(used, failed) for _, used, failed in told[0]] == [(5, False), (5, False), (5, False), (0, True)]
    masters = {path.name: planes_of(path) for path in (tmp_path / "plain").glob("*.fits")}
    assert len(masters) == 3
    for name, planes in masters.items():
        np.testing.assert_array_equal(planes_of(tmp_path / "jobs" / name), planes)


def planes_of(path: Path) -> np.ndarray:
    with fits.open(path) as opened:
        return np.stack([np.squeeze(opened[i].data) for i in range(5)])


def test_a_job_that_slurm_does_not_take_is_said(slurm, small_night, tmp_path):
    with pytest.raises(LerarError, match=r"Slurm takes no job: .*invalid partition"):
        stack([small_night], tmp_path / "out", Settings.of(report=False, **JOBS, queue="nowhere"), bus=Bus())
    assert not list((tmp_path / "out").glob(".cluster-*"))


def test_ranks_of_srun(slurm, small_night, small_bits, tmp_path):
    words = [
        "srun",
        "-n",
        "3",
        "--overcommit",
        "--mem=6000M",
        sys.executable,
        "-m",
        "lerar_dask",
        "stack",
        str(small_night),
    ]
    words += [
        "-o",
        str(tmp_path / "out"),
        "--scheduler",
        "srun",
        "--interface",
        "lo",
        "--memory",
        "2GiB",
        "--no-report",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "distributed" not in done.stdout + done.stderr
    assert fingerprint(tmp_path / "out") == small_bits
    assert not list((tmp_path / "out").glob(".cluster-*"))


def test_a_chain_of_job_arrays(slurm, small_night, small_bits, tmp_path):
    settings, out = tmp_path / "s.toml", tmp_path / "out here"
    settings.write_text('[products]\nreport = false\n[slurm]\njob_cores = 1\njob_memory = "2GiB"\nwalltime = "10"\n')
    stage = [sys.executable, "-m", "lerar_dask", "stage"]
    subprocess.run(
        [*stage, "begin", out, "--night", small_night, "--config", settings], check=True, capture_output=True
    )
    script = subprocess.run([*stage, "sbatch", out, "--part", "1/2"], check=True, capture_output=True, text=True).stdout
    (tmp_path / "chain.sh").write_text(script.replace("sbatch ", "sbatch --wait-all-nodes=1 "))
    told = subprocess.run(["bash", tmp_path / "chain.sh"], check=True, capture_output=True, text=True).stdout
    last = told.split()[-1]
    waited = ["srun", f"--dependency=afterany:{last}", "-n", "1", "true"]
    subprocess.run(waited, check=True, capture_output=True, timeout=300)
    logs = {file.name: file.read_text() for file in out.glob("*.out")}
    assert (out / "Sim_L.fits").exists(), logs
    assert fingerprint(out) == small_bits


def test_when_slurm_takes_no_more_jobs_the_run_ends_with_its_words(
    slurm, small_night, small_bits, tmp_path, monkeypatch
):
    """And goes on from there when it does again."""
    tool = tmp_path / "bin" / "sbatch"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'sbatch: error: the account has no hours left' >&2\nexit 1\n")
    tool.chmod(0o755)

    def end(event):
        if isinstance(event, TaskFinished) and event.step == "ingest" and str(tool.parent) not in os.environ["PATH"]:
            monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
            subprocess.run(["scancel", *jobs_here()], check=True)

    with pytest.raises(LerarError, match="Slurm takes no job: sbatch: error: the account has no hours left"):
        stack([small_night], tmp_path / "out", Settings.of(report=False, **JOBS), bus=Bus([end]))
    monkeypatch.undo()
    assert stack([small_night], tmp_path / "out", Settings.of(report=False), bus=Bus()).exit_code == 0
    assert fingerprint(tmp_path / "out") == small_bits
