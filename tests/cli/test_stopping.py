"""Ctrl-C where Python lets no exception out: it is heard a moment later, and nothing is printed."""

import subprocess
import sys

CODE = """
import os, signal, time
from lerar_dask.cli.stopping import signals

class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)

with signals():
    try:
        Deaf()
        time.sleep(1.0)
        print("not heard")
    except KeyboardInterrupt:
        print("heard")
"""


def test_a_signal_in_a_finalizer_is_heard_after_it():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=30)
    assert done.stdout == "heard\n"
    assert done.stderr == ""
