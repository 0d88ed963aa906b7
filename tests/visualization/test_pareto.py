"""The front of networks that nobody beats, and its picture."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from vfd.visualization import pareto
from vfd.visualization.pareto import draw_pareto, pareto_front
from vfd.visualization.theme import DARK, LIGHT


def test_front_from_cheap_to_dear():
    scores, costs = [1.0, 3.0, 2.0, 3.0, 5.0, 4.0], [1.0, 2.0, 3.0, 2.0, 9.0, 9.0]
    assert pareto_front(scores, costs) == [0, 1, 4]
    assert pareto_front([2.0, 1.0], [1.0, 1.0]) == [0]


def test_pictures_of_one_and_of_several_costs():
    names, scores = [f'network-{i}' for i in range(6)], [-1.0, -0.5, -0.4, -0.9, -0.2, -0.2]
    costs = {'parameters, M': [1.0, 2, 3, 4, 5, 6], 'latency, ms': [1.0, 40, 3, 4, 5, 6]}
    one = draw_pareto(names, scores, {'parameters, M': costs['parameters, M']}, 'sum', LIGHT)
    two = draw_pareto(names, scores, costs, 'sum', DARK)
    sizes = [Image.open(io.BytesIO(png)).size for png in (one, two)]
    assert abs(sizes[1][0] - 2 * sizes[0][0]) <= 1 and np.asarray(Image.open(io.BytesIO(two))).std() > 1


def texts(monkeypatch, *arguments, **more) -> tuple[list[list[str]], str]:
    """What stands in the panels, and below them."""
    figures = []
    monkeypatch.setattr(pareto, 'to_png', lambda figure: figures.append(figure) or b'')
    draw_pareto(*arguments, **more)
    (figure,) = figures
    figure.draw_without_rendering()
    return [[text.get_text() for text in axes.texts] for axes in figure.axes], ''.join(
        text.get_text() for text in figure.texts
    )


def test_the_front_is_named_and_names_do_not_overlap(monkeypatch):
    names, scores = [f'net-{i}' for i in range(5)], [5.0, 4.0, 3.0, 2.0, 1.0]
    costs = {'parameters, M': [9.0, 7.0, 5.0, 3.0, 6.0]}
    (panel,), below = texts(monkeypatch, names, scores, costs, 'sum', LIGHT)
    assert sorted(panel) == names[:4] and not below  # the last one is beaten
    close = {'parameters, M': [9.0, 9.0001, 8.9999, 3.0, 6.0]}
    (panel,), _ = texts(monkeypatch, names, [5.0, 5.0, 4.9999, 2.0, 1.0], close, 'sum', LIGHT)
    assert {'net-0', 'net-3'} <= set(panel)


def test_long_names_are_numbers_and_whole_below(monkeypatch):
    names = [f'|nor_conv_3x3~0|+|nor_conv_3x3~0|none~{i}|+|none~0|none~1|skip_connect~2|' for i in range(3)]
    (panel,), below = texts(
        monkeypatch, names, [1.0, 3.0, 2.0], {'parameters, M': [1.0, 3.0, 2.0]}, 'sum', LIGHT
    )
    assert sorted(panel) == ['1', '2', '3']
    assert all(f'{place}: {names[i]}' in below for place, i in ((1, 1), (2, 2), (3, 0)))
    structure = ''.join(f'SuperResK3K3({i},64,1,64,1)' for i in range(40))
    _, below = texts(monkeypatch, [structure], [1.0], {'parameters, M': [1.0]}, 'sum', LIGHT)
    assert structure in below.replace('\n', '').replace(' ', '')


def test_known_accuracies_have_a_panel(monkeypatch):
    names, scores, costs = ['a', 'b', 'c', 'd'], [4.0, 3.0, 2.0, 1.0], {'parameters, M': [4.0, 3.0, 2.0, 1.0]}
    panels, _ = texts(monkeypatch, names, scores, costs, 'sum', LIGHT, [50.0, None, 90.0, 60.0])
    assert len(panels) == 2 and set(panels[1]) == {'a', 'c', 'd'}
    panels, _ = texts(monkeypatch, names, scores, costs, 'sum', LIGHT, [None] * 4)
    assert len(panels) == 1


def test_a_single_network():
    assert draw_pareto(['x'], [-1.0], {'parameters, M': [0.0]}, 'sum', LIGHT)[:4] == b'\x89PNG'
