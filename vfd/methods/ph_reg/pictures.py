"""Dense features of a transformer before and after it got registers: one picture."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

import numpy as np

from vfd.visualization.pca import pca_colours
from vfd.visualization.theme import Theme, new_figure, to_png

_SIDE = 2.7  # inches of a panel's width


@dataclass(frozen=True)
class RegisterMaps:
    """An image and dense features of it. h, w count patches.

    Attributes:
        image: (H, W, 3) RGB in 0..1.
        teacher: (D, h, w), of the transformer as it was.
        denoised: (D, h, w), its mean over shifted and mirrored views: the student's target.
        student: (D, h, w), of the transformer with registers.
        notes: sentences for the caption.
    """

    image: np.ndarray
    teacher: np.ndarray
    denoised: np.ndarray
    student: np.ndarray
    notes: list[str] = field(default_factory=list)


def draw_register_maps(maps: RegisterMaps, theme: Theme) -> bytes:
    """Draw input and denoised target; features and lengths of tokens of the teacher; the same of the student.

    Features are coloured by their principal components over the three maps together: equal colours mean alike features.
    The lengths of teacher and student have one scale.

    Returns:
        A PNG.
    """
    colours = pca_colours(np.stack([maps.denoised, maps.teacher, maps.student]))
    norms = [np.linalg.norm(features, axis=0) for features in (maps.teacher, maps.student)]
    low, high = min(map(np.min, norms)), max(map(np.max, norms))
    height, width = maps.image.shape[:2]
    text = ' '.join(
        [*maps.notes, 'Colours: the first three principal components of the features, over all three maps.']
    )
    lines = textwrap.wrap(text, 115)
    figure = new_figure(theme, 3 * _SIDE + 0.6, 2 * (_SIDE * height / width + 0.3) + 0.19 * len(lines) + 0.1)
    grid = figure.subplots(2, 3)
    panels = [
        ('input', maps.image),
        ('teacher: features', colours[1]),
        ('student: features', colours[2]),
        ('denoised target: features', colours[0]),
        (f'teacher: length, max / median {_excess(norms[0])}', norms[0]),
        (f'student: length, max / median {_excess(norms[1])}', norms[1]),
    ]
    for axes, (title, picture) in zip(grid.flat, panels, strict=True):
        axes.set_axis_off()
        shown = axes.imshow(
            picture,
            interpolation='antialiased' if title == 'input' else 'nearest',
            extent=(0, width, height, 0),
            cmap='magma',
            **({'vmin': low, 'vmax': high} if picture.ndim == 2 else {}),
        )
        axes.set_title(title, color=theme.text, fontsize=9, pad=5)
    bar = figure.colorbar(shown, ax=list(grid[1]), fraction=0.02, pad=0.01)
    bar.ax.tick_params(colors=theme.muted, labelsize=8, length=0)
    bar.outline.set_visible(False)
    figure.supxlabel('\n'.join(lines), color=theme.muted, fontsize=8.5)
    return to_png(figure)


def _excess(norms: np.ndarray) -> str:
    return f'{norms.max() / np.median(norms):.2f}'
