"""The main job on real images: what ``make quickstart`` runs."""

import argparse
import os
import sys

from vfd.cli.main import guarded
from vfd.cli.places import find_examples


def main() -> int:
    """Read command line and environment and run every step that is not done yet."""
    parser = argparse.ArgumentParser(
        description='Distil a real ImageNet teacher into a small student, without labels, on real images.'
    )
    parser.add_argument(
        '--data',
        default=os.environ.get('DATA', 'fashion-mnist'),
        help='fashion-mnist or cifar10; default: $DATA, else fashion-mnist',
    )
    parser.add_argument(
        '--seeds',
        default=os.environ.get('SEEDS', '1'),
        help='number of runs, with several: mean and spread; default: $SEEDS, else 1',
    )
    args = parser.parse_args()

    def run() -> None:
        find_examples()
        from quickstart.run import quickstart

        quickstart(args.data, args.seeds)

    return guarded(run)


if __name__ == '__main__':
    sys.exit(main())
