"""Input, prediction and features of a masked autoencoder in one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vfd.visualization.pca import pca_colours
from vfd.visualization.theme import Theme, new_figure, to_png

HIDDEN = 0.62  # grey of a patch that the network does not see
ERROR_WHITE = 0.5  # mean error of the three channels, in 0..1, that is drawn white
_COLUMNS = 3  # where there are two full rows
_SMALL = 128  # pixels: smaller pictures are drawn with sharp pixels


@dataclass(frozen=True)
class Reconstruction:
    """An image and a model's predictions for it. H, W are divisible by the patch's side; h, w count patches.

    Attributes:
        image: (H, W, 3) RGB in 0..1.
        hidden: (h, w) bool, patches hidden from the network.
        predicted: (H, W, 3) prediction for every patch, not clipped; None for a method without pixels.
        features: name -> (D, h, w), of equal D: student, and teacher where it is known.
        notes: sentences for the caption.
    """

    image: np.ndarray
    hidden: np.ndarray
    predicted: np.ndarray | None
    features: dict[str, np.ndarray]
    notes: list[str] = field(default_factory=list)

    @property
    def pixel_mask(self) -> np.ndarray:
        """(H, W, 1) bool, True where hidden."""
        rows, columns = (
            self.image.shape[0] // self.hidden.shape[0],
            self.image.shape[1] // self.hidden.shape[1],
        )
        return self.hidden.repeat(rows, axis=0).repeat(columns, axis=1)[..., None]

    @property
    def masked(self) -> np.ndarray:
        """(H, W, 3): the image with its hidden patches in grey."""
        return np.where(self.pixel_mask, HIDDEN, self.image)

    @property
    def pasted(self) -> np.ndarray | None:
        """(H, W, 3): the prediction in the hidden patches, the image itself elsewhere."""
        if self.predicted is None:
            return None
        return np.where(self.pixel_mask, self.predicted.clip(0, 1), self.image)

    @property
    def error(self) -> float | None:
        """Root mean squared error of the hidden pixels, in 0..255."""
        if self.predicted is None:
            return None
        squared = (self.predicted.clip(0, 1) - self.image) ** 2
        return 255 * float(np.sqrt(squared[self.pixel_mask[..., 0]].mean()))


def draw_reconstruction(result: Reconstruction, theme: Theme) -> bytes:
    """Draw input, masked input, reconstruction and its error, and the features of student and teacher in colours.

    Features are coloured by their principal components over all maps together: equal colours mean alike features, also
    between student and teacher.

    Returns:
        A PNG.
    """
    panels: list[tuple[str, np.ndarray]] = [
        ('input', result.image),
        (f'seen: {1 - result.hidden.mean():.0%} of the patches', result.masked),
    ]
    if result.pasted is not None:
        off = np.abs(result.pasted - result.image).mean(axis=-1, keepdims=True) / ERROR_WHITE
        panels += [
            ('reconstruction', result.pasted),
            (f'error, rms {result.error:.0f} of 255', off.clip(0, 1).repeat(3, -1)),
        ]
    names = sorted(result.features, reverse=True)  # the teacher first
    colours = pca_colours(np.stack([result.features[name] for name in names]))
    panels += [(f'features: {name}', map_) for name, map_ in zip(names, colours, strict=True)]
    key = 'Colours of features: their first three principal components' + (
        ', over both maps.' if names[1:] else '.'
    )
    return _draw(panels, ' '.join([*result.notes, key]), theme)


def _draw(panels: Sequence[tuple[str, np.ndarray]], caption: str, theme: Theme) -> bytes:
    """Draw pictures of one shape of frame in rows, and a sentence below."""
    columns = len(panels) if len(panels) < 2 * _COLUMNS else _COLUMNS
    rows = -(-len(panels) // columns)
    height, width = panels[0][1].shape[:2]
    side = 2.6
    lines = textwrap.wrap(caption, 40 * columns)
    figure = new_figure(theme, side * columns, (side * height / width + 0.3) * rows + 0.19 * len(lines) + 0.1)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (title, picture) in zip(grid.flat, panels, strict=False):
        sharp = max(picture.shape[:2]) < _SMALL
        axes.imshow(
            picture, interpolation='nearest' if sharp else 'antialiased', extent=(0, width, height, 0)
        )
        axes.set_title(title, color=theme.text, fontsize=9.5, pad=5)
    figure.supxlabel('\n'.join(lines), color=theme.muted, fontsize=8.5)
    return to_png(figure)
