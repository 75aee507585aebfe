"""The paper's table 2 from run folders: `python experiments/latent_table.py PAGE RUN ...`."""

import sys

from experiments.latent.paper_table import main

if __name__ == "__main__":
    sys.exit(main())
