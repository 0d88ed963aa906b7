"""DMAE on real images: pre-train a small ViT under a real one, fine-tune it and a twin, print both accuracies."""

import argparse
import sys

from vfd.cli.main import guarded
from vfd.cli.places import find_examples


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', default='fashion-mnist', help='fashion-mnist or cifar10')
    parser.add_argument('--seeds', type=int, default=1, help='number of runs')
    parser.add_argument(
        '--teacher',
        metavar='FILE',
        help='weights for vit_small_patch14_dinov2 of timm, or mae: train one on the images',
    )
    args = parser.parse_args()

    def run() -> None:
        find_examples()
        from quickstart.vit import vit_quickstart

        vit_quickstart(args.data, args.seeds, teacher=args.teacher)

    return guarded(run)


if __name__ == '__main__':
    sys.exit(main())
