import io
import json
import re
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from vfd.visualization import (
    DARK,
    LIGHT,
    Panel,
    Report,
    draw_curves,
    draw_grid,
    draw_prediction,
    read_scalars,
)


def picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert('RGB'))


def background(theme) -> list[int]:
    return [int(theme.page[i : i + 2], 16) for i in (1, 3, 5)]


def colour_count(image: np.ndarray, colour: str) -> int:
    return int((image == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(-1).sum())


def test_curves_are_drawn_in_the_colours_of_the_theme():
    panel = Panel('Loss', 'loss', [('a', ([0, 50, 100], [3.0, 2.0, 1.0])), ('b', ([0, 100], [1.0, 1.0]))])
    for theme in (LIGHT, DARK):
        image = picture(draw_curves([panel, panel], theme))
        assert image[0, 0].tolist() == background(theme)
        assert colour_count(image, theme.series[0]) > 200 and colour_count(image, theme.series[1]) > 200
        assert colour_count(image, theme.series[2]) == 0


def test_grid_shows_every_picture():
    red = np.zeros((2, 4, 4, 3))
    red[..., 0] = 1
    image = picture(draw_grid([('input', red), ('other', np.zeros((2, 2, 2, 3)))], ['x', 'y'], LIGHT))
    assert colour_count(image, '#ff0000') > 5000 and colour_count(image, '#000000') > 5000


def test_prediction_bars_are_as_long_as_the_scores():
    image = np.zeros((28, 28, 3), np.uint8)
    wide = picture(draw_prediction(image, ['a', 'b'], [0.9, 0.1], LIGHT))
    narrow = picture(draw_prediction(image, ['a', 'b'], [0.3, 0.1], LIGHT))
    ratio = colour_count(wide, LIGHT.series[0]) / colour_count(narrow, LIGHT.series[0])
    assert 2.7 < ratio < 3.3


def test_scalars_of_resumed_runs_are_joined(tmp_path):
    def write(folder, rows):
        path = tmp_path / folder / 'vis_data/scalars.json'
        path.parent.mkdir(parents=True)
        path.write_text('\n'.join(rows))

    write(
        '20260101_000000',
        [json.dumps({'loss': 3.0, 'step': 10}), json.dumps({'loss': 9.0, 'step': 20}), '{"lo'],
    )
    write(
        '20260101_000001',
        [json.dumps({'loss': 2.0, 'step': 20}), json.dumps({'accuracy/top1': 50.0, 'step': 20})],
    )
    assert read_scalars(tmp_path) == {'loss': ([10, 20], [3.0, 2.0]), 'accuracy/top1': ([20], [50.0])}


def test_page_is_self_contained_and_escaped():
    report = Report('A <title>', 'lead & more')
    report.heading('Table')
    report.cards([('77 %', 'best')], best=0)
    report.table(['name', 'value'], [['<b>', '1'], ['x', '2']], numbers=(1,), best=1)
    report.figure(
        lambda theme: draw_grid([('r', np.zeros((1, 2, 2, 3)))], ['c'], theme), 'alt "text"', 'caption'
    )
    report.folded('config', 'a < b')
    html = report.html()
    parser = HTMLParser()
    parser.feed(html)
    assert '<script' not in html and not re.search(r'(?:src|href|url\()\W*https?:', html)
    assert '&lt;b&gt;' in html and 'a &lt; b' in html and 'A &lt;title&gt;' in html
    pictures = re.findall(r'data:image/png;base64,([^"]+)', html)
    assert len(pictures) == 2
    for data, theme in zip(pictures, (DARK, LIGHT), strict=True):
        assert picture(b64decode(data))[0, 0].tolist() == background(theme)
