"""What a batch of irregular times costs: `python experiments/irregular_cost.py --out FOLDER`."""

import sys

from experiments.trajectories.clocks import main

if __name__ == "__main__":
    sys.exit(main())
