"""``vfd mine CONFIG --images FOLDER --k 1000 --out list.txt``: see :mod:`vfd.offline.mine`.

Run it again after an interruption and it goes on; with ``--launcher pytorch`` (torchrun) or ``slurm`` (srun)
the ranks share the pool.
"""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``mine``."""
    parser.add_argument('config', nargs='?', help='training config whose model.teacher scores the pool')
    parser.add_argument('--model', help='instead of a config: a timm model name')
    parser.add_argument('--checkpoint', help='with --model: weights file, "pretrained" or "random"')
    parser.add_argument('--num-classes', type=int, help='with --model: classes of the checkpoint')
    parser.add_argument('--images', required=True, help='the pool: folder, or text list')
    parser.add_argument('--root', default='', help='folder to which the list of the pool is relative')
    parser.add_argument(
        '--k', type=int, default=1000, help='images to keep of a class (default 1000, project default)'
    )
    parser.add_argument(
        '--min-score', type=float, default=0.0, help='leave out images with a lower probability (default 0)'
    )
    parser.add_argument('--out', required=True, help='list to write; a report is written beside it')
    parser.add_argument(
        '--exclude', help='validation images whose copies leave the pool: folder, or text list'
    )
    parser.add_argument('--exclude-root', default='', help='folder to which that list is relative')
    parser.add_argument('--store', help='folder of the scores (default OUT.scores)')
    parser.add_argument(
        '--input-size', type=int, help="side of the input in pixels (default: the teacher's, or 224)"
    )
    parser.add_argument('--crop-pct', type=float, default=0.875)
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm'], default='none')
    parser.add_argument('--device', help='for example cuda:0 or cpu')
    parser.add_argument('--max-hash-distance', type=int, default=8, help='of 64 bits (project default 8)')
    parser.add_argument(
        '--min-matches', type=int, default=12, help='agreeing SIFT matches (project default 12)'
    )
    parser.add_argument('--verify', action='store_true', help='check what an earlier run wrote, and stop')


def run(args: argparse.Namespace) -> None:
    """Mine, or check what was mined."""
    from vfd.offline import mine as api
    from vfd.offline.step import report_faults

    names = api.MiningSettings.__dataclass_fields__
    settings = api.MiningSettings(**{name: value for name, value in vars(args).items() if name in names})
    if args.verify:
        report_faults(api.verify_mining(settings), 'all records and the list agree with their checksums')
    else:
        teacher = api.teacher_config(args.config, args.model, args.checkpoint, args.num_classes)
        api.mine_unlabeled(teacher, settings)
