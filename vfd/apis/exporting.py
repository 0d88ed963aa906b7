"""Export of a trained student: what ``vfd export`` calls."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vfd.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

    from vfd.export import Certificate


def export(
    config: str | Path | Config,
    checkpoint: str | Path,
    target: str,
    out: str | Path | None = None,
    images: str | Path | Iterable[str | Path] | None = None,
    tolerance: float | None = None,
    part: str | None = None,
) -> Certificate:
    """Write a student in another form, load it there, compare it with the live one and certify that.

    The exported folder ``out/<target>`` appears complete, with ``certificate.json`` in it, or not at all.

    Args:
        config: what the student was trained with, of a distiller or a plain model.
        checkpoint: what training wrote.
        target: ``timm``, ``mmpretrain``, ``mmdet``, ``mmseg``, ``hf``, ``safetensors``, ``onnx`` or ``torchscript``.
        out: folder for exports; default ``export`` beside the checkpoint.
        images: folder or files to compare on; default: the first 8 of the config's test data set.
        tolerance: largest error allowed, as a fraction of the largest output (at least of 1); default: the
            target's.
        part: ``model`` or ``backbone``; default: the model where it has heads and the target can build it, else the
            backbone, see `vfd.export.parts`.

    Returns:
        The certificate.

    Raises:
        UserError: the student has no such form, the checkpoint is not complete, or the outputs differ.
        MissingPackageError: the target needs a package that is not installed.
    """
    from mmengine.config import Config as MMConfig
    from mmengine.logging import print_log

    from vfd.apis.config import load_config
    from vfd.checkpoints import file_sha256
    from vfd.export import choose_part, compare, live_student, load_target, real_images, staging_folder
    from vfd.export.certificate import FILE_NAME, certify

    form = load_target(target)
    loaded = config if isinstance(config, MMConfig) else load_config(config)
    student, reason = choose_part(live_student(loaded, checkpoint), form, part)
    if reason:
        print_log(f'exporting the backbone: {reason}', logger='current')
    output = form.output(student)
    batch, names = real_images(loaded, student, images)
    allowed = form.TOLERANCE if tolerance is None else tolerance
    final = Path(out if out is not None else Path(checkpoint).parent / 'export') / target
    with staging_folder(final) as folder:
        artefact = form.write(student, folder, batch)
        parity = compare(output.ask, form.reload(artefact, student), batch, allowed)
        place = final / artefact.name
        snippet = form.snippet(place, student)
        certificate = certify(
            target, place, student, output.meaning, loaded, parity, allowed, batch, names, snippet
        )
        form.annotate(artefact, certificate.text())
        compare(output.ask, form.reload(artefact, student), batch, allowed)  # as the user gets it
        files = {file.name: file_sha256(file) for file in sorted(folder.iterdir())}
        certificate = dataclasses.replace(certificate, files=files)
        (folder / FILE_NAME).write_text(certificate.text() + '\n', encoding='utf-8')
    return certificate


def export_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``export``."""
    parser.add_argument('config', help='config the student was trained with')
    parser.add_argument('checkpoint', help='checkpoint that training wrote')
    parser.add_argument(
        '--to',
        required=True,
        metavar='TARGET',
        help='timm, mmpretrain, mmdet, mmseg, hf, safetensors, onnx or torchscript',
    )
    parser.add_argument(
        '--part',
        help='model or backbone; default: the model where it has heads and the target can build it, else the backbone',
    )
    parser.add_argument('--out', metavar='DIR', help='folder; default: export/ beside the checkpoint')
    parser.add_argument(
        '--images',
        nargs='+',
        metavar='PATH',
        help='folder or files to compare on; default: the first 8 images of the test data set',
    )
    parser.add_argument(
        '--tolerance',
        type=float,
        help='largest error allowed, as a fraction of the largest output; default: that of the target',
    )


def run_export(args: argparse.Namespace) -> None:
    """``export``: export, then print what was checked and how to load the result."""
    if args.tolerance is not None and not args.tolerance >= 0:
        raise UserError(f'--tolerance {args.tolerance}: expected a number of at least 0, such as 1e-4')
    print_certificate(
        export(args.config, args.checkpoint, args.to, args.out, args.images, args.tolerance, args.part)
    )


def print_certificate(certificate: Certificate) -> None:
    """A small table, and the lines that load the artefact."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    teacher = certificate.teacher or 'none recorded'
    rows = {
        'file': str(certificate.artefact),
        'part': certificate.part,
        'output': certificate.output,
        'left out': ', '.join(certificate.dropped) or 'nothing',
        'student': '{network}, {parameters:,} parameters'.format(**certificate.student),
        'teacher': str(teacher.get('source', teacher)) if isinstance(teacher, dict) else str(teacher),
        'compared on': f'{len(certificate.images)} images, batch sizes {certificate.batch_sizes}',
        'largest error': f'{certificate.max_error:.3g} (allowed {certificate.limit:.3g})',
        'mean error': f'{certificate.mean_error:.3g}',
        'input': '{size} {channel_order}, mean {mean}, std {std}'.format(**certificate.preprocessing),
    }
    table = Table(title=f'exported to {certificate.target}', show_header=False, title_justify='left')
    for name, value in rows.items():
        table.add_row(name, escape(value))
    console = Console()
    console.print(table)
    console.print(certificate.snippet, markup=False, highlight=False, soft_wrap=True)
