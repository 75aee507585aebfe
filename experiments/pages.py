"""Put a run's table and pictures into a page: `python experiments/pages.py PAGE NAME=RUN ...`."""

import sys

from experiments.harness.page_blocks import main

if __name__ == "__main__":
    sys.exit(main())
