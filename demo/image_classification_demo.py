"""Classify an image: ``image_classification_demo.py IMAGE --export DIR`` or ``--config C --checkpoint W``."""

import argparse
import sys

from vfd.cli.main import guarded


def run(args: argparse.Namespace) -> None:
    """Classify, print and draw."""
    from vfd.apis.inference import ImageClassificationInferencer
    from vfd.stores import atomic_write
    from vfd.visualization import LIGHT, draw_prediction

    result = ImageClassificationInferencer(args.config, args.checkpoint, args.export)(args.image)
    for name, score in zip(result.names, result.scores, strict=True):
        print(f'{score:6.1%}  {name}')
    atomic_write(args.out, draw_prediction(result.image, result.names, result.scores, LIGHT))
    print(args.out)


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Classify an image with a trained student or an export of it.'
    )
    parser.add_argument('image')
    parser.add_argument('--config', help='config the student was trained with')
    parser.add_argument('--checkpoint', help='checkpoint that training wrote')
    parser.add_argument('--export', metavar='DIR', help='folder of an export to timm, onnx or torchscript')
    parser.add_argument('--out', default='prediction.png', help='picture with the five best classes')
    args = parser.parse_args()
    return guarded(lambda: run(args))


if __name__ == '__main__':
    sys.exit(main())
