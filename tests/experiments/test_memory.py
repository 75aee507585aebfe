"""A command starts anew once, with glibc's huge pages and the same arguments."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from experiments.memory import restart_with_huge_pages
print("begins", flush=True)
restart_with_huge_pages()
print(sys.argv[1:], os.environ["GLIBC_TUNABLES"])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
@pytest.mark.parametrize(
    ("given", "begins", "tunables"),
    [(None, 2, "glibc.malloc.hugetlb=1"), ("glibc.malloc.check=0", 1, "glibc.malloc.check=0")],
)
def test_a_command_starts_anew_once_unless_tuned(given, begins, tunables):
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    if given:
        environment["GLIBC_TUNABLES"] = given
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "--lr", "0.1 2"],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    assert done.stdout == "begins\n" * begins + f"['--lr', '0.1 2'] {tunables}\n"
