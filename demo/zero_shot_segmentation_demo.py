"""Segment an image by names: ``zero_shot_segmentation_demo.py IMAGE --classes "sky" "car, automobile" --checkpoint W``.

The picture shows the image, its classes in colours, and a legend with their shares of the area.
"""

import argparse
import sys
from pathlib import Path

from vfd.cli.main import guarded

DEFAULT = Path(__file__).parents[1] / 'configs/ph_reg/zero-shot_clip-vit-base-p16_voc21.py'


def run(args: argparse.Namespace) -> None:
    """Segment and draw."""
    from vfd.apis.zero_shot import ZeroShotSegmentationInferencer
    from vfd.stores import atomic_write
    from vfd.visualization.segmentation import draw_segmentation
    from vfd.visualization.theme import LIGHT

    segment = ZeroShotSegmentationInferencer(
        args.config,
        args.checkpoint,
        args.class_file or args.classes,
        args.prob_thd,
        args.allow_random,
        args.device,
    )
    result = segment(args.image)
    if args.allow_random:
        print('random weights were allowed: the labels may mean nothing')
    for name, share in result.shares.items():
        print(f'{share:6.1%}  {name}')
    atomic_write(args.out, draw_segmentation(result.image, result.labels, result.names, result.shares, LIGHT))
    print(args.out)


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Segment an image by the names of its classes.')
    parser.add_argument('image')
    names = parser.add_mutually_exclusive_group()
    names.add_argument(
        '--classes', nargs='+', metavar='NAMES', help='a class each; its names separated by ", "'
    )
    names.add_argument('--class-file', help="a class a line; default: the config's names")
    parser.add_argument('--config', default=DEFAULT, help='config of zero-shot segmentation')
    parser.add_argument('--checkpoint', help='of a PH-Reg training of CLIP, or a released file')
    parser.add_argument('--prob-thd', type=float, help='less likely pixels become the first class')
    parser.add_argument(
        '--allow-random', action='store_true', help='accept random weights, to see that it runs'
    )
    parser.add_argument('--device', help='for example cuda:0 or cpu; default: the GPU if there is one')
    parser.add_argument('--out', default='segmentation.png', help='the picture')
    args = parser.parse_args()
    return guarded(lambda: run(args))


if __name__ == '__main__':
    sys.exit(main())
