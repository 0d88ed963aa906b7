"""Rank networks of timm for a teacher, without training: ``search_demo.py FOLDER --teacher resnet50``.

With ``--table tests/golden/data/diswot/nb201_accuracy.npz`` instead of a folder it shows what searchers find in
NAS-Bench-201 when the score is the accuracy itself.

All networks have random weights: that is the method's own rule, and nothing is downloaded. What is compared is how the
teacher and a student relate the images to each other, so a few different images are needed.
"""

import argparse
import sys

from vfd.cli.main import guarded

STUDENTS = (
    'resnet10t', 'resnet14t', 'resnet18', 'resnet26', 'mobilenetv3_small_100', 'mobilenetv3_large_100',
    'efficientnet_lite0', 'mnasnet_100', 'ghostnet_100', 'lcnet_100', 'regnety_002', 'mobilenetv4_conv_small',
)  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Write a config for the images and search with it."""
    from mmengine.config import Config

    from vfd.offline.search import search

    steps = [
        dict(type='vfd.LoadImage'),
        dict(type='mmpretrain.Resize', scale=(args.size, args.size)),
        dict(type='mmpretrain.PackInputs'),
    ]
    dataset = dict(type='vfd.ImageFolderDataset', data_root=args.images, pipeline=steps)
    config = dict(
        default_scope='mmpretrain',
        model=dict(
            type='vfd.DisWOT',
            student=dict(type='mmpretrain.TimmClassifier', model_name=args.students[0]),
            teacher=dict(
                type='vfd.Teacher',
                source=dict(type='vfd.TimmSource', model_name=args.teacher),
                checkpoint='pretrained',
            ),
            data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
        ),
        train_dataloader=dict(batch_size=16, num_workers=0, dataset=dataset),
        search=dict(
            space=dict(type='vfd.TimmSpace', models=list(args.students), input_size=args.size),
            scorers=['relation'],
            init='default',
            seeds=args.seeds,
            batch_size=32,
            measure_latency=True,
        ),
    )
    search(Config(config), args.out)


def search_table(args: argparse.Namespace) -> None:
    """Let random search and evolution look for the best cell of a table."""
    import random
    from statistics import mean, pstdev

    from vfd.methods.diswot.searchers import AgingEvolution, RandomSearch
    from vfd.methods.diswot.spaces import NASBench201Space
    from vfd.methods.diswot.table import TableScorer

    space = NASBench201Space()
    oracle = TableScorer(space, args.table, args.column)
    print(f'best of {len(oracle.known)} cells: {max(oracle.known.values()):.2f}')
    for searcher in (RandomSearch(300), AgingEvolution(300)):
        runs = [searcher.run(space, oracle, lambda _: True, random.Random(seed)) for seed in range(20)]
        best = [max(score for _, score in run) for run in runs]
        print(f'{type(searcher).__name__}, 300 cells, 20 seeds: {mean(best):.2f} ± {pstdev(best):.2f}')


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Rank networks of timm for a teacher without training them.')
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('images', nargs='?', help='folder of images')
    what.add_argument('--table', help='table of NAS-Bench-201 accuracies to search in, without images')
    parser.add_argument('--column', default='cifar100', help='of the table')
    parser.add_argument('--teacher', default='resnet50', help='a network of timm')
    parser.add_argument('--students', nargs='+', default=STUDENTS, help='networks of timm, names or patterns')
    parser.add_argument('--size', type=int, default=128, help='side of the images in pixels')
    parser.add_argument('--seeds', type=int, default=2, help='draws of the weights')
    parser.add_argument('--out', default='work_dirs/search_demo', help='folder for ranking and picture')
    args = parser.parse_args()
    return guarded(lambda: search_table(args) if args.table else run(args))


if __name__ == '__main__':
    sys.exit(main())
