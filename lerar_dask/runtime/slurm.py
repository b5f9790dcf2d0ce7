"""The same tasks in jobs of Slurm (`--scheduler slurm`).

Each job runs one worker. A job that ends is replaced, and what it was doing is done again. dask-jobqueue has the same plan;
we submit the jobs ourselves, since with its release 0.9 a path with a space breaks the job script, the private key is
written into the current folder, a lost job is replaced only by `adapt`, and importing it takes Ctrl-C away.
"""

from __future__ import annotations

import logging
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from lerar_dask.errors import LerarError, SpaceError, UsageError
from lerar_dask.runtime import cluster
from lerar_dask.runtime.address import check_shared
from lerar_dask.runtime.memory import parse_bytes
from lerar_dask.runtime.own_program import python_path
from lerar_dask.runtime.own_scheduler import OwnScheduler, worker_words
from lerar_dask.settings import Slurm
from lerar_dask.tasks import Record, Task

__all__ = ["SlurmCluster", "chain_script", "job_script", "sbatch_words", "seconds_of"]

_log = logging.getLogger("lerar_dask.run")
_EVERY_S = 2.0
_TOLD_EVERY_S = 60.0
_TRIES = 3
"""Submissions in a row that may fail."""
_LIFETIME_SHARE = 0.92
"""Share of the wall time after which a worker leaves: Slurm ends a job up to half a minute late, never early."""
_NANNY_BYTES = 100 << 20
"""Of the process beside each worker that starts it again."""


class SlurmCluster(OwnScheduler):
    """Executor on workers in jobs of Slurm.

    Parameters
    ----------
    settings : the jobs
    out : folder that all nodes see
    shared : folder of the results and other paths, which workers must see as this process does
    """

    def __init__(self, settings: Slurm, out: Path, shared: Sequence[Path], *, dashboard: bool = False) -> None:
        if shutil.which("sbatch") is None:
            raise LerarError("there is no sbatch here", "--scheduler slurm works on a machine that can submit jobs")
        worker_bytes = parse_bytes(settings.job_memory)
        seconds_of(settings.walltime)
        super().__init__(out, settings.interface, settings.jobs, settings.job_cores, worker_bytes, dashboard=dashboard)
        script = job_script(settings, self._cluster.scheduler_address, self.files, worker_bytes)
        self._jobs = _Jobs(sbatch_words(settings, self.folder), script, settings.jobs, self._give_up)
        try:
            self._wait(shared)
        except BaseException:
            self.close()
            raise

    def run(self, tasks: Iterator[Task], slots: int) -> Iterator[Record | SpaceError]:
        """Run tasks; when no job can be started any more, say why."""
        try:
            yield from super().run(tasks, slots)
        except LerarError as error:
            if not self._jobs.problem:
                raise
            raise LerarError(self._jobs.problem, "what is done stays; call again when it is mended") from error

    def close(self) -> None:
        """End the jobs and remove what was written for them."""
        self._jobs.end()
        super().close()

    def _give_up(self) -> bool:
        """Let go of all tasks when no worker is left that could do them; whether that is so."""
        if self._cluster.scheduler.workers:
            return False
        self._client.close(timeout=2)
        return True

    def _wait(self, shared: Sequence[Path]) -> None:
        """Until the first worker is here; what the queue says in the meantime goes to the log."""
        told = time.monotonic()
        while not self._cluster.scheduler.workers:
            if self._jobs.problem:
                raise LerarError(self._jobs.problem, "the options are those of [slurm] in the settings")
            if time.monotonic() - told > _TOLD_EVERY_S:
                told = time.monotonic()
                _log.warning("waiting for the first job: %s", self._jobs.states() or "none is in the queue")
            time.sleep(0.2)
        check_shared(self._client, shared[0], shared[1:])


def job_script(settings: Slurm, address: str, files: Mapping[str, Path], worker_bytes: int) -> str:
    """The job: one worker that leaves in time before the walltime."""
    lifetime_s = int(_LIFETIME_SHARE * seconds_of(settings.walltime))
    worker = worker_words(address, files, settings.job_cores, worker_bytes)
    worker += ["--lifetime", f"{lifetime_s}s", "--lifetime-stagger", f"{int(0.05 * lifetime_s)}s"]
    lines = ["#!/bin/bash", *_prologue(settings)]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in cluster.ENVIRONMENT.items()]
    if path := python_path():
        lines.append(f"export PYTHONPATH={shlex.quote(path)}")
    lines += ['scratch=$(mktemp -d "${TMPDIR:-/tmp}/lerar-XXXXXX")', "trap 'rm -rf \"$scratch\"' EXIT"]
    lines.append(f'{shlex.join(worker)} --local-directory "$scratch"')
    return "\n".join(lines) + "\n"


def sbatch_words(settings: Slurm, folder: Path) -> list[str]:
    """Command that submits a job, whose script comes on its input."""
    asked = int(1.15 * parse_bytes(settings.job_memory)) + _NANNY_BYTES
    return [*_words(settings, "lerar", asked), f"--output={folder}/job-%j.log", "--open-mode=append"]


def chain_script(
    settings: Slurm,
    stages: Sequence[str],
    shared: Collection[str],
    n_jobs: int,
    call: Callable[[str], Sequence[str]],
    out: Path,
) -> str:
    """Shell script that submits stages, each to begin when the one before has ended well.

    Parameters
    ----------
    shared : stages that are arrays of `n_jobs` jobs, told their share as `--part`
    call : command of a stage
    out : folder for what the jobs print
    """
    lines = [
        "#!/bin/bash",
        "# Submits a run of lerar: each stage waits for the one before.",
        "set -euo pipefail",
        "job=",
    ]
    for stage in stages:
        words = [
            *_words(settings, f"lerar-{stage}", parse_bytes(settings.job_memory)),
            f"--output={out}/{stage}-%A_%a.out",
        ]
        command = shlex.join(call(stage))
        if stage in shared and n_jobs > 1:
            words.append(f"--array=1-{n_jobs}")
            command += f' --part "$SLURM_ARRAY_TASK_ID/{n_jobs}"'
        wrapped = shlex.quote("; ".join([*_prologue(settings), command]))
        after = "${job:+--dependency=afterok:$job}"
        lines.append(f"job=$({shlex.join(words)} {after} --wrap {wrapped} | cut -d';' -f1)")
    return "\n".join([*lines, 'echo "the last job is $job"']) + "\n"


def _words(settings: Slurm, name: str, asked_bytes: int) -> list[str]:
    """Command that asks for a job of so much memory; all options as words, so that spaces do no harm."""
    words = ["sbatch", "--parsable", f"--job-name={name}", "--nodes=1", "--ntasks=1"]
    words += [f"--cpus-per-task={settings.job_cores}", f"--mem={-(-asked_bytes // (1 << 20))}M"]
    words += [f"--time={settings.walltime}"]
    words += [f"--partition={settings.queue}"] if settings.queue else []
    words += [f"--account={settings.account}"] if settings.account else []
    return words + shlex.split(settings.sbatch_options)


def _prologue(settings: Slurm) -> list[str]:
    """Commands that a job begins with."""
    return [line.strip() for line in settings.prologue.split(";") if line.strip()]


def seconds_of(walltime: str) -> int:
    """Seconds of a time as Slurm writes it: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]].

    Raises
    ------
    UsageError
        for another form.
    """
    days, dash, clock = walltime.rpartition("-")
    parts = clock.split(":")
    if not all(p.isdigit() for p in [*parts, days if dash else "0"]) or len(parts) > 3:
        raise UsageError(f"--walltime {walltime!r} is no time", "as 08:00:00, or 2-00:00:00 for two days")
    n = [int(p) for p in parts]
    if dash:
        hours, minutes, seconds = [*n, 0, 0][:3]
    else:
        hours, minutes, seconds = {1: [0, *n, 0], 2: [0, *n], 3: n}[len(n)]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


class _Jobs:
    """Jobs of this run: so many are kept in the queue or running until `end`.

    Parameters
    ----------
    give_up : called when Slurm takes no more jobs, until it returns True
    """

    def __init__(self, submit: Sequence[str], script: str, n: int, give_up: Callable[[], bool]) -> None:
        self._give_up = give_up
        self._submit, self._script, self._n = submit, script, n
        self._ids: list[str] = []
        self._failed = 0
        self.problem = ""
        """Why no more jobs are submitted."""
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="slurm jobs", daemon=True)
        self._watcher.start()

    def states(self) -> str:
        """What the queue says of the jobs: state and reason."""
        told = _call("squeue", "-h", "-o", "%A %T (%r)", "-j", ",".join(self._ids)) if self._ids else ""
        return ", ".join(told.splitlines())

    def end(self) -> None:
        """Cancel the jobs, and submit no more."""
        self._ended.set()
        self._watcher.join(30)
        if self._ids:
            _call("scancel", *self._ids)

    def _watch(self) -> None:
        while not self._ended.is_set():
            here = self._here()
            if here is not None:
                self._ids = here
                while len(self._ids) < self._n and not self.problem and not self._ended.is_set():
                    if not self._submit_one():
                        break
            if self.problem and self._give_up():
                return
            self._ended.wait(_EVERY_S)

    def _here(self) -> list[str] | None:
        """Jobs that wait or run; None when the queue does not answer."""
        if not self._ids:
            return []
        told = subprocess.run(
            ["squeue", "-h", "-o", "%A %t", "-j", ",".join(self._ids)], capture_output=True, text=True
        )
        if told.returncode and "Invalid job id" not in told.stderr:
            return None
        rows = [line.split() for line in told.stdout.splitlines()]
        return [row[0] for row in rows if row[1] in ("PD", "R", "CF", "S", "RQ")]

    def _submit_one(self) -> bool:
        done = subprocess.run(self._submit, input=self._script, capture_output=True, text=True)
        if done.returncode == 0:
            self._ids.append(done.stdout.strip().split(";")[0])
            self._failed = 0
            return True
        self._failed += 1
        words = " ".join((done.stderr or done.stdout).split())[:300]
        _log.warning("sbatch: %s", words)
        if self._failed >= _TRIES:
            self.problem = f"Slurm takes no job: {words}"
        return False


def _call(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
