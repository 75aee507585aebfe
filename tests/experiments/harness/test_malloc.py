"""A command starts anew once, with a malloc that keeps memory and the same arguments."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from experiments.harness.malloc import restart_with_kept_memory
print("begins", flush=True)
restart_with_kept_memory()
print(sys.argv[1:], *os.environ["GLIBC_TUNABLES"].split(":"))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
@pytest.mark.parametrize(
    ("given", "begins", "tunable"),
    [(None, 2, "glibc.malloc.trim_threshold=1099511627776"), ("glibc.malloc.check=0", 1, None)],
)
def test_a_command_starts_anew_once_unless_tuned(given, begins, tunable):
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    if given:
        environment["GLIBC_TUNABLES"] = given
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "--lr", "0.1 2"],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    *begun, last = done.stdout.splitlines()
    assert begun == ["begins"] * begins
    assert last.startswith("['--lr', '0.1 2']")
    assert (tunable or given) in last.split()


STEPS = """
import resource
from experiments.harness.malloc import restart_with_kept_memory
restart_with_kept_memory()
import numpy as np
from experiments.classify.resolve import learner_options
from jax_node import classify
learner = classify.learner(**learner_options(["--model", "resnet1", "--devices", "2"]))
images = np.random.default_rng(0).integers(0, 256, (64, 28, 28, 1), np.uint8)
batch = {"images": images, "labels": np.arange(64) % 10}
faults = []
for step in range(12):
    learner.train_step(batch, 0.1)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(min(after - before for before, after in zip(faults, faults[1:])))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_step_takes_no_fresh_memory():
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    kept, given_back = (
        int(
            subprocess.run(
                [sys.executable, "-c", STEPS],
                capture_output=True, text=True, env=environment | more, check=True,
            ).stdout
        )
        for more in ({}, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"})
    )  # fmt: skip
    # Images of 26x26x64 float32 are 11 MB: 2,700 pages of 4 kB, and a step has many.
    assert given_back > 2700
    assert kept < 100  # of Python's own
