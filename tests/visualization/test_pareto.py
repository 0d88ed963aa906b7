"""The front of networks that nobody beats, and its picture."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

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


def test_a_single_network():
    assert draw_pareto(['x'], [-1.0], {'parameters, M': [0.0]}, 'sum', LIGHT)[:4] == b'\x89PNG'
