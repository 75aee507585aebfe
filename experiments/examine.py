"""What a trained run does where it was not trained: `python experiments/examine.py RUN`."""

import sys

from experiments.classify.examination import main

if __name__ == "__main__":
    sys.exit(main())
