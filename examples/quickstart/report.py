"""Write the quickstart's report: accuracies, training curves, and feature maps of the networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor

from quickstart.results import Results
from quickstart.teacher import TeacherSpec, as_input, load_images
from vfd import compat
from vfd.apis.inference import ImageClassificationInferencer
from vfd.export import live_student
from vfd.stores import atomic_write
from vfd.students import forward_taps
from vfd.visualization import (
    Panel,
    Report,
    draw_curves,
    draw_grid,
    draw_prediction,
    pca_colours,
    read_scalars,
)

ENLARGED = 2  # how much larger than in training the networks see an image whose features are drawn
FINEST = 8  # stride of the feature maps that are drawn, in pixels of the input
NAMES = {'supervised': 'supervised baseline', 'distilled': 'distilled'}


def write_report(results: Results, teacher: TeacherSpec, work: Path) -> Path:
    """Write ``report.html``.

    Args:
        results: what was found out.
        teacher: to draw its features.
        work: folder of the quickstart.
    """
    counts, data = results.data.counts, results.data
    report = Report(
        f'Quickstart: {data.title}',
        f'{results.teacher_name}, trained on ImageNet, is distilled into a student of '
        f'{results.exports[0]["student"]["parameters"] / 1e6:.3f} M parameters on {counts["unlabelled"]} images '
        f'without labels (SSLD). Its supervised baseline has the same initial weights, optimizer and steps, and the '
        f'{counts["labelled"]} labels that exist.',
    )
    report.cards(
        [
            (
                f'{results.probe["test_accuracy"]:.1%}',
                f'teacher, linear probe on {counts["labelled"]} labels',
            ),
            (
                f'{results.accuracy("supervised"):.1%}',
                f'student, supervised with {counts["labelled"]} labels',
            ),
            (f'{results.accuracy("distilled"):.1%}', 'student, distilled without labels'),
        ],
        best=2,
    )
    report.text(_verdict(results))
    report.heading('Comparison')
    report.table(results.header, results.rows(), numbers=(2, 3, 4, 5), best=2)
    report.text(
        f'Accuracy on {counts["test"]} test images that nothing was chosen on. kNN: the {counts["labelled"]} labelled '
        'images vote by cosine similarity of the pooled features (k = 10). '
        + (
            f'Mean and standard deviation of {len(results.of("distilled"))} seeds.'
            if len(results.runs) > 2
            else 'One seed.'
        ),
        note=True,
    )
    report.heading('Training')
    panels = _panels(results)
    report.figure(
        lambda theme: draw_curves(panels, theme),
        'loss and test accuracy of both students over the training steps',
        'The two losses measure different things (distance from the teacher; cross-entropy with the labels): compare '
        'their courses, not their heights. Both accuracies are on the test images.',
    )
    report.heading('What the networks see')
    rows, columns, caption = _feature_rows(results, teacher)
    report.figure(
        lambda theme: draw_grid(rows, columns, theme), 'feature maps of the networks as colours', caption
    )
    report.heading('One image')
    prediction = ImageClassificationInferencer(export=work / 'export/onnx')(data.root / results.example)
    report.figure(
        lambda theme: draw_prediction(prediction.image, prediction.names, prediction.scores, theme),
        f'a test image and the probabilities of its best classes: {prediction.names[0]} first',
        f'{results.example}, classified by the exported ONNX file; the folder names its true class.',
        width=640,
    )
    report.heading('Exports')
    report.table(
        ['form', 'file', 'largest error', 'allowed', 'SHA-256'],
        [
            [c['target'], f'export/{c["target"]}/{c["artefact"]}', f'{c["max_error"]:.2g}', f'{c["limit"]:.2g}',
             c['files'][c['artefact']][:16]]
            for c in results.exports
        ],
        numbers=(2, 3),
    )  # fmt: skip
    report.text('Each was loaded in its target and compared with the live student on test images.', note=True)
    report.heading('Time')
    report.table(
        ['step', 'seconds', ''],
        [[name, f'{s:.1f}', 'done earlier' if name in results.reused else ''] for name, s in results.times()],
        numbers=(1,),
    )
    report.heading('How it was made')
    report.folded('Data', _data_rows(results))
    report.folded('Teacher probe', {name: str(value) for name, value in results.probe.items()})
    report.folded(f'Configuration ({results.config_file})', results.config)
    report.folded('Versions', compat.status())
    path = work / 'report.html'
    atomic_write(path, report.html())
    return path


def _verdict(results: Results) -> str:
    gain = results.accuracy('distilled') - results.accuracy('supervised')
    points = f'{abs(gain) * 100:.1f} points'
    against = f'{points} {"above" if gain >= 0 else "below"} its supervised baseline'
    gap = results.accuracy('distilled') - results.probe['test_accuracy']
    teacher = f'{abs(gap) * 100:.1f} points {"above" if gap >= 0 else "below"} its teacher'
    return f'The distilled student is {against} and {teacher}.'


def _panels(results: Results) -> list[Panel]:
    scalars = [(NAMES[run.kind], read_scalars(run.folder)) for run in results.runs]
    losses = [(name, logged['loss']) for name, logged in scalars]
    accuracies = [
        (name, (logged['accuracy/top1'][0], [v / 100 for v in logged['accuracy/top1'][1]]))
        for name, logged in scalars
    ]
    teacher = [('teacher probe', results.probe['test_accuracy'])]
    return [
        Panel('Training loss', 'loss', losses),
        Panel('Test accuracy', 'accuracy (fraction correct)', accuracies, teacher),
    ]


def _feature_rows(
    results: Results, teacher: TeacherSpec
) -> tuple[list[tuple[str, np.ndarray]], list[str], str]:
    """Compute one test image a class, and the three networks' features of them as colours."""
    data = results.data
    first = {file.split('/')[1]: file for file in reversed(data.files('test'))}
    images = load_images(data.root, [first[name] for name in data.classes])  # RGB uint8
    source = teacher.build(['pooled'])
    size = teacher.input_size * ENLARGED
    seen = F.interpolate(images.float(), (size, size), mode='bicubic', antialias=True, align_corners=False)
    maps, stride = dense_map(source.network, as_input(seen.clamp(0, 255), source.normalization))
    rows = [
        ('input', images.permute(0, 2, 3, 1).numpy()),
        (f'teacher\n{size} px / {stride}', pca_colours(maps)),
    ]
    size = data.size[0] * ENLARGED
    seen = F.interpolate(images.float(), (size, size), mode='bicubic', align_corners=False).clamp(0, 255)
    for kind in ('distilled', 'supervised'):
        run = results.of(kind)[0]
        cfg = Config.fromstring(results.config, '.py')
        student = live_student(cfg, run.checkpoint)
        maps, stride = dense_map(student.model.model, as_input(seen, student.normalization))
        rows.append((f'{kind}\nstudent\n{size} px / {stride}', pca_colours(maps)))
    caption = (
        f'The first three principal components of the feature maps as red, green and blue, fitted per network over all '
        f'images shown: like colours are like features. Images are shown to each network at {ENLARGED} times its '
        f'training size; the number behind the slash is the stride of the map.'
    )
    return rows, list(data.classes), caption


def dense_map(network: Any, images: Tensor) -> tuple[np.ndarray, int]:
    """Compute the deepest feature map (N, D, H, W) of a timm network at a stride up to ``FINEST``, and the stride."""
    strides = [info['reduction'] for info in network.feature_info]
    index = max(i for i, stride in enumerate(strides) if stride <= max(FINEST, min(strides)))
    with torch.inference_mode():
        maps = forward_taps(network, images, [f'stage.{index}'])[f'stage.{index}']
    return maps.numpy(), strides[index]


def _data_rows(results: Results) -> dict[str, str]:
    data = results.data
    return {
        'images': data.title,
        'source': data.source,
        'licence': data.licence,
        'counts': ', '.join(f'{count} {part}' for part, count in data.counts.items()),
        'classes': ', '.join(data.classes),
        'fingerprint': data.fingerprint,
    }
