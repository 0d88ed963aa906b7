"""Find objects in an image: ``detection_demo.py IMAGE --export DIR`` or ``--config C --checkpoint W``."""

import argparse
import sys

from vfd.cli.main import guarded


def run(args: argparse.Namespace) -> None:
    """Detect, print and draw."""
    from vfd.apis.detection_inference import DetectionInferencer
    from vfd.stores import atomic_write

    detect = DetectionInferencer(args.config, args.checkpoint, args.export)
    found = detect(args.image, args.threshold)
    for name, score, box in zip(found.names, found.scores, found.boxes.round(1).tolist(), strict=True):
        print(f'{score:6.1%}  {name}  {box}')
    atomic_write(args.out, detect.draw(found))
    print(args.out)


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Find objects with a trained detector or an export of it.')
    parser.add_argument('image')
    parser.add_argument('--config', help='config the detector was trained with')
    parser.add_argument('--checkpoint', help='checkpoint that training wrote')
    parser.add_argument('--export', metavar='DIR', help='folder of an export to mmdet or onnx')
    parser.add_argument('--threshold', type=float, default=0.3, help='lowest score that is shown')
    parser.add_argument('--out', default='detections.png', help='picture with boxes, masks and names')
    args = parser.parse_args()
    return guarded(lambda: run(args))


if __name__ == '__main__':
    sys.exit(main())
