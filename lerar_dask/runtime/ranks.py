"""The ranks of one allocation (`srun lerar stack ... --scheduler srun`): rank 0 leads, the others work for it.

Rank 0 leaves its address in OUT, where the others find it.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lerar_dask.errors import LerarError
from lerar_dask.runtime import cluster
from lerar_dask.runtime.address import check_shared
from lerar_dask.runtime.own_program import environment
from lerar_dask.runtime.own_scheduler import FOLDER, OwnScheduler, worker_words
from lerar_dask.settings import Slurm

__all__ = ["SrunCluster", "is_worker_rank", "serve_rank"]

_RANKS_S = 180.0
"""How long the ranks wait for one another."""


class SrunCluster(OwnScheduler):
    """Executor on the other ranks of an `srun` of this very command.

    Parameters
    ----------
    worker_bytes : memory of each rank
    """

    def __init__(
        self, settings: Slurm, out: Path, shared: Sequence[Path], worker_bytes: int, *, dashboard: bool = False
    ) -> None:
        n = _rank()[1] - 1
        if n < 1:
            raise LerarError(
                "--scheduler srun has one rank alone", "srun -n 9 lerar stack ... --scheduler srun: one leads, 8 work"
            )
        super().__init__(out, settings.interface, n, _rank_threads(), worker_bytes, dashboard=dashboard)
        try:
            written = self.folder / "meeting.json"
            written.write_text(json.dumps({"address": self._cluster.scheduler_address, "folder": str(self.folder)}))
            os.replace(written, _meeting(out))
            self._client.wait_for_workers(1, timeout=_RANKS_S)
            check_shared(self._client, shared[0], shared[1:])
        except TimeoutError as error:
            self.close()
            raise LerarError("no other rank has come", f"all ranks must see {out}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Send the other ranks home."""
        _meeting(self.folder.parent).unlink(missing_ok=True)
        super().close()


def is_worker_rank() -> bool:
    """Whether this process is a rank of an `srun` that works for another one."""
    return _rank()[0] > 0


def serve_rank(out: Path, worker_bytes: int) -> int:
    """Work for the rank that leads, until it has ended; the exit code."""
    meeting, until = _meeting(out), time.monotonic() + _RANKS_S
    while not meeting.exists():
        if time.monotonic() > until:
            raise LerarError(
                f"rank 0 has not left its address in {out}", "all ranks must see the folder of the results"
            )
        time.sleep(0.2)
    told = json.loads(meeting.read_text())
    files = {name: Path(told["folder"]) / f"{name}.pem" for name in ("ca", "cert", "key")}
    words = worker_words(told["address"], files, _rank_threads(), worker_bytes)
    with (
        TemporaryDirectory(prefix="lerar-", ignore_cleanup_errors=True) as scratch,
        (Path(told["folder"]) / f"rank-{_rank()[0]}.log").open("w") as log,
    ):
        subprocess.run(
            [*words, "--local-directory", scratch],
            env={**environment(), **cluster.ENVIRONMENT},
            stdout=log,
            stderr=log,
            check=False,
        )
    return 0


def _rank() -> tuple[int, int]:
    """Number of this rank, and how many there are."""
    return int(os.environ.get("SLURM_PROCID", "0")), int(os.environ.get("SLURM_NTASKS", "1"))


def _rank_threads() -> int:
    return int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))


def _meeting(out: Path) -> Path:
    """Where rank 0 leaves its address: another one for each step of a job, and each time that it is started again."""
    parts = [os.environ.get(f"SLURM_{name}", "0") for name in ("JOB_ID", "STEP_ID", "RESTART_COUNT")]
    return out / f"{FOLDER}{'-'.join(parts)}.json"
