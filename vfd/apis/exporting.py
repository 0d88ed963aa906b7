"""Export of a trained student: what ``vfd export`` calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vfd.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

    from vfd.export import ExportReport, LoadedStudent


def export(
    config: str | Path | Config,
    checkpoint: str | Path,
    target: str,
    out: str | Path | None = None,
    images: str | Path | Iterable[str | Path] | None = None,
    tolerance: float | None = None,
    part: str | None = None,
) -> ExportReport:
    """Write a student in another form, load it there, compare it with the live one and certify that.

    The exported folder ``out/<target>`` appears complete, with ``certificate.json`` in it, or not at all.

    Args:
        config: what the student was trained with, of a distiller or a plain model.
        checkpoint: what training wrote.
        target: ``timm``, ``mmpretrain``, ``mmdet``, ``mmseg``, ``hf``, ``safetensors``, ``onnx`` or ``torchscript``.
        out: folder for exports; default ``export`` beside the checkpoint.
        images: folder or files to compare on; default: the first 8 (of a detector 4) of the config's test data set.
            A config with ``example_inputs``, see `vfd.export.example_inputs`, takes none.
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
    from vfd.export import choose_part, compare, live_student, load_target, staging_folder
    from vfd.export.certificate import FILE_NAME, certify

    form = load_target(target)
    loaded = config if isinstance(config, MMConfig) else load_config(config)
    _check_inputs(loaded, target, images)
    student, reason = choose_part(live_student(loaded, checkpoint), form, part)
    if reason:
        print_log(f'exporting the backbone: {reason}', logger='current')
    output = form.output(student)
    batch, names, others = _inputs(loaded, student, images)
    allowed = form.TOLERANCE if tolerance is None else tolerance
    final = Path(out if out is not None else Path(checkpoint).parent / 'export') / target
    with staging_folder(final) as folder:
        artefact = form.write(student, folder, batch)
        batches = others or getattr(form, 'batches', _two_batches)(artefact, student, batch)
        parity = compare(output, form.reload(artefact, student), batches, allowed)
        place = final / artefact.name
        snippet = form.snippet(place, student)
        certificate = certify(
            target, place, student, output.meaning, loaded, parity, allowed, batch, names, snippet
        )
        form.annotate(artefact, certificate.text())
        compare(output, form.reload(artefact, student), batches[:1], allowed)  # as the user gets it
        files = {file.name: file_sha256(file) for file in sorted(folder.iterdir())}
        certificate = dataclasses.replace(certificate, files=files)
        (folder / FILE_NAME).write_text(certificate.text() + '\n', encoding='utf-8')
    return certificate


def _check_inputs(config: Config, target: str, images: Any) -> None:
    """Refuse other targets, and images, for a student that does not read images."""
    from vfd.export.target import ANY_INPUT

    if not config.get('example_inputs'):
        return
    if images is not None:
        raise UserError('the config has example_inputs, which stand for images: leave --images out')
    if target not in ANY_INPUT:
        raise UserError(
            f'--to {target} is for students that read images, and the config has example_inputs; take one of '
            f'{", ".join(ANY_INPUT)}'
        )


def _inputs(config: Config, student: LoadedStudent, images: Any) -> tuple[Any, list[str], list[Any]]:
    """Return the export's inputs, their names, and the batches to compare where the target does not choose them."""
    from vfd.export import real_images
    from vfd.export.example_inputs import example_inputs

    spec = config.get('example_inputs')
    if not spec:
        batch, names = real_images(config, student, images)
        return batch, names, []
    first, second = example_inputs(spec), example_inputs(spec, seed=1)
    return first, ['example_inputs'], [first, second]


def _two_batches(artefact: Path, student: LoadedStudent, batch: Any) -> list[Any]:
    from vfd.export.parity import two_batches

    return two_batches(batch)


def print_certificate(certificate: ExportReport) -> None:
    """Print a small table, and the lines that load the artefact."""
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
        'compared on': f'{", ".join(certificate.images)}, shapes {certificate.input_shapes}',
        'largest error': f'{certificate.max_error:.3g} (allowed {certificate.limit:.3g})',
        'mean error': f'{certificate.mean_error:.3g}',
    }
    for name, errors in certificate.outputs.items():
        rows[f'error of {name}'] = '{max_error:.3g} (allowed {limit:.3g})'.format(**errors)
    described = certificate.preprocessing
    if 'mean' in described:
        rows['input'] = '{size} {channel_order}, mean {mean}, std {std}'.format(**described)
    else:
        rows['input'] = ', '.join(f'{name} {shape}' for name, shape in described['inputs'].items())
    table = Table(title=f'exported to {certificate.target}', show_header=False, title_justify='left')
    for name, value in rows.items():
        table.add_row(name, escape(value))
    console = Console()
    console.print(table)
    console.print(certificate.snippet, markup=False, highlight=False, soft_wrap=True)
