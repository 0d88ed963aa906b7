"""Fill in hidden patches: ``reconstruction_demo.py IMAGE --config C --checkpoint W``.

The picture shows the image, its visible patches, the reconstruction, and the features of student and teacher.
"""

import argparse
import sys

from vfd.cli.main import guarded


def run(args: argparse.Namespace) -> None:
    """Reconstruct and draw."""
    from vfd.apis.reconstruction import ReconstructionInferencer
    from vfd.stores import atomic_write
    from vfd.visualization import LIGHT, draw_reconstruction

    result = ReconstructionInferencer(args.config, args.checkpoint, args.mask_ratio)(args.image, args.seed)
    for note in result.notes:
        print(note)
    if result.error is not None:
        print(f'root mean squared error of the hidden pixels: {result.error:.1f} of 255')
    atomic_write(args.out, draw_reconstruction(result, LIGHT))
    print(args.out)


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Show what a masked autoencoder fills in, and its features.')
    parser.add_argument('image')
    parser.add_argument(
        '--config', required=True, help='config of the pre-training: DMAE, MAE or G2SD generic'
    )
    parser.add_argument(
        '--checkpoint', required=True, help='checkpoint that it wrote, or a released MAE file'
    )
    parser.add_argument('--mask-ratio', type=float, help="share of hidden patches; default: the config's")
    parser.add_argument('--seed', type=int, default=0, help='of the mask')
    parser.add_argument('--out', default='reconstruction.png', help='the picture')
    args = parser.parse_args()
    return guarded(lambda: run(args))


if __name__ == '__main__':
    sys.exit(main())
