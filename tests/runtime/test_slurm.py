"""What is submitted to Slurm: times, words, scripts; what killed runs leave."""

import os
import shlex
import socket
import subprocess

import pytest

from lerar_dask.errors import LerarError, UsageError
from lerar_dask.runtime.own_scheduler import sweep_folders
from lerar_dask.runtime.slurm import SlurmCluster, chain_script, job_script, sbatch_words, seconds_of
from lerar_dask.settings import Slurm


@pytest.mark.parametrize(
    ("walltime", "seconds"),
    [("10", 600), ("10:30", 630), ("08:00:00", 28_800), ("2-00", 172_800), ("1-02:30", 95_400), ("1-02:03:04", 93_784)],
)
def test_times_as_slurm_writes_them(walltime, seconds):
    assert seconds_of(walltime) == seconds


@pytest.mark.parametrize("walltime", ["", "soon", "1:2:3:4", "-5", "1h"])
def test_other_times_are_refused(walltime):
    with pytest.raises(UsageError, match="is no time"):
        seconds_of(walltime)


def test_words_of_sbatch_hold_spaces_together(tmp_path):
    jobs = Slurm(
        queue="fast", account="a b", job_cores=4, job_memory="8GiB", sbatch_options="--comment='two words' --exclusive"
    )
    words = sbatch_words(jobs, tmp_path / "a b")
    assert words[:2] == ["sbatch", "--parsable"]
    assert {"--partition=fast", "--account=a b", "--cpus-per-task=4", "--comment=two words", "--exclusive"} <= set(
        words
    )
    assert f"--output={tmp_path}/a b/job-%j.log" in words
    (memory,) = [int(w[6:-1]) for w in words if w.startswith("--mem=")]
    assert 8192 * 1.15 < memory < 8192 * 1.2, "room for the nanny, and for Slurm's own way to count"


def test_a_chain_is_one_script_that_bash_takes(tmp_path):
    jobs = Slurm(job_memory="1.5GiB", prologue="module load a; module load b")
    script = chain_script(jobs, ["one", "two"], {"two"}, 4, lambda stage: ["do it", stage], tmp_path / "a b")
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).returncode == 0
    first, second = (shlex.split(line) for line in script.splitlines() if line.startswith("job=$("))
    assert "--mem=1536M" in first, "sbatch takes whole numbers only"
    assert not any(word.startswith("--array") for word in first)
    assert "--array=1-4" in second
    assert "module load a; module load b; 'do it' two --part \"$SLURM_ARRAY_TASK_ID/4\"" in second


def test_the_script_is_one_that_bash_takes(tmp_path):
    files = {name: tmp_path / "a b" / f"{name}.pem" for name in ("ca", "cert", "key")}
    jobs = Slurm(prologue="export WHERE='here and there'; cd /tmp", walltime="01:00:00", job_cores=3)
    script = job_script(jobs, "tls://10.0.0.1:1", files, 2 << 30)
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).returncode == 0
    last = shlex.split(script.splitlines()[-1])
    assert str(files["key"]) in last
    assert last[last.index("--nthreads") + 1] == "3"
    assert last[last.index("--lifetime") + 1] == "3312s"
    assert "export WHERE='here and there'" in script


def test_what_killed_runs_of_this_machine_left_is_removed(tmp_path):
    ours, alive, elsewhere = (tmp_path / f".cluster-{name}" for name in ("a", "b", "c"))
    ended = subprocess.Popen(["true"])
    ended.wait()
    for folder, host, pid in (
        (ours, socket.gethostname(), ended.pid),
        (alive, socket.gethostname(), os.getpid()),
        (elsewhere, "another", ended.pid),
    ):
        folder.mkdir()
        (folder / "driver").write_text(f"{host} {pid}")
        (folder / "key.pem").write_text("secret")
    sweep_folders(tmp_path)
    assert [folder.exists() for folder in (ours, alive, elsewhere)] == [False, True, True]


def test_a_machine_without_slurm_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LerarError, match="no sbatch here"):
        SlurmCluster(Slurm(), tmp_path, [])


def test_an_interface_that_is_not_there_leaves_nothing_behind(tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "sbatch"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    with pytest.raises(UsageError, match="no network interface 'nowhere9'"):
        SlurmCluster(Slurm(interface="nowhere9"), tmp_path / "out", [])
    assert not (tmp_path / "out").exists()


def test_too_little_memory_is_told(tmp_path, monkeypatch):
    tool = tmp_path / "sbatch"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(UsageError, match="too little for a worker"):
        SlurmCluster(Slurm(job_memory="10MiB"), tmp_path, [])
