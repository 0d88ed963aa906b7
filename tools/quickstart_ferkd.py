"""FerKD on real images: label crops with a real teacher, calibrate, train a small student and twins, print a table."""

import argparse
import sys

from vfd.cli.main import guarded
from vfd.cli.places import find_examples


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seeds', type=int, default=1, help='number of runs')
    args = parser.parse_args()

    def run() -> None:
        find_examples()
        from quickstart.ferkd import ferkd_quickstart

        ferkd_quickstart(args.seeds)

    return guarded(run)


if __name__ == '__main__':
    sys.exit(main())
