"""PH-Reg on real photos: train registers for a real ViT, print how consistent its features are before and after."""

import argparse
import sys

from vfd.cli.main import guarded
from vfd.cli.places import find_examples


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--photos', metavar='FOLDER', help='train on these; default: those of scikit-image')
    parser.add_argument('--teacher', metavar='FILE', help='weights for vit_small_patch14_dinov2 of timm')
    args = parser.parse_args()

    def run() -> None:
        find_examples()
        from quickstart.registers import register_quickstart

        register_quickstart(args.photos, args.teacher)

    return guarded(run)


if __name__ == '__main__':
    sys.exit(main())
