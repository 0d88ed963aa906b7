"""Segment an image: ``segmentation_demo.py IMAGE --export DIR`` or ``--config C --checkpoint W``."""

import argparse
import sys

from vfd.cli.main import guarded


def run(args: argparse.Namespace) -> None:
    """Segment, print and draw."""
    from vfd.apis.segmentation_inference import SegmentationInferencer
    from vfd.stores import atomic_write

    segment = SegmentationInferencer(args.config, args.checkpoint, args.export)
    found = segment(args.image)
    for name, share in found.shares.items():
        print(f'{share:6.1%}  {name}')
    atomic_write(args.out, segment.draw(found))
    print(args.out)


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Segment an image with a trained segmentor or an export of it.'
    )
    parser.add_argument('image')
    parser.add_argument('--config', help='config the segmentor was trained with')
    parser.add_argument('--checkpoint', help='checkpoint that training wrote')
    parser.add_argument('--export', metavar='DIR', help='folder of an export to mmseg or onnx')
    parser.add_argument('--out', default='classes.png', help='picture with the classes in colours')
    args = parser.parse_args()
    return guarded(lambda: run(args))


if __name__ == '__main__':
    sys.exit(main())
