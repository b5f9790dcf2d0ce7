"""Sizes in words, limits, what a process holds."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerar_dask.errors import UsageError
from lerar_dask.runtime import memory


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("2GiB", 2 << 30),
        ("1500MB", 1500 * 10**6),
        ("1.5 gib", 3 << 29),
        ("4096", 4096),
        (".5k", 500),
        ("1e9", 10**9),
        ("3G", 3 * 10**9),
    ],
)
def test_parse(text, n):
    assert memory.parse_bytes(text) == n


@pytest.mark.parametrize("text", ["", "x", "-1G", "2 apples", "GiB", "nan", "inf", "1.2.3M"])
def test_no_amount(text):
    with pytest.raises(UsageError):
        memory.parse_bytes(text)


@given(st.integers(0, 1 << 45))
def test_words_tell_the_size(n):
    assert memory.parse_bytes(memory.format_bytes(n)) == pytest.approx(n, rel=0.06)


def test_budget_is_at_most_what_there_is(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 8 << 30)
    assert memory.budget_bytes("") == 4 << 30
    assert memory.budget_bytes("1GiB") == 1 << 30
    assert memory.budget_bytes("100GiB") == 8 << 30


def test_the_smallest_limit_counts(monkeypatch):
    monkeypatch.setattr(memory, "_machine_available", lambda: 10 << 30)
    monkeypatch.setattr(memory, "_cgroup_limits", lambda: [5 << 30, 7 << 30])
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    monkeypatch.delenv("SLURM_MEM_PER_CPU", raising=False)
    assert memory.available_bytes() == 5 << 30
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "1024")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "3")
    assert memory.available_bytes() == 3 << 30
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2048")
    assert memory.available_bytes() == 2 << 30
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 30, 1 << 30))
    assert memory.available_bytes() == 1 << 30


def test_cores(monkeypatch):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(memory, "_cpu_quota", lambda: 0)
    assert memory.cpu_count() == 8
    monkeypatch.setattr(memory, "_cpu_quota", lambda: 3)
    assert memory.cpu_count() == 3
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    assert memory.cpu_count() == 2


def test_memory_of_this_process_is_seen():
    before = memory.tree_bytes()
    block = np.ones(8 << 20)
    assert memory.tree_bytes() - before > 0.8 * block.nbytes


def test_children_count():
    code = "x = bytearray(b'1' * (80 << 20)); print('held', flush=True); input()"
    before = memory.tree_bytes()
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"held\n"
    seen = memory.tree_bytes()
    child.communicate(b"\n")
    assert seen - before > 70 << 20
