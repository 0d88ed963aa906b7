"""Further inputs of a teacher: refused in one place, checked once, resized with the images."""

import pytest
import torch
from torch import nn

from vfd.errors import UserError
from vfd.registry import MODELS
from vfd.stores.ragged import Ragged
from vfd.teachers import Normalization, Teacher

SOURCE = dict(type='vfd.ToySourceForInputTests')
IMAGES = torch.rand(2, 3, 8, 12)


@pytest.fixture(autouse=True)
def toy_source():
    @MODELS.register_module(name='ToySourceForInputTests', force=True)
    class Toy:
        """Means of an image inside boxes, the prompt, seeds: whatever it is given, it answers."""

        name = 'toy'
        num_classes = None
        normalization = Normalization()
        reads = frozenset({'boxes', 'prompt', 'seed'})

        def __init__(self, taps=('seen',), pretrained=False, offset=0.0):
            self.network = nn.Linear(3, 2)
            self.offset = offset
            self.seen = {}
            self.calls = 0

        def constants(self):
            self.calls += 1
            return {'text': self.network.weight * 2}

        def forward_taps(self, images, taps, boxes=None, prompt=None, seed=None, constants=None):
            self.seen = dict(images=images, boxes=boxes, prompt=prompt, seed=seed, constants=constants)
            answer = images.mean((2, 3)) + self.offset
            if boxes is None:
                return dict.fromkeys(taps, answer)
            values = torch.cat([box[:, :2] for box in boxes]).half()
            counts = torch.tensor([len(box) for box in boxes])
            return {tap: Ragged(values, counts) for tap in taps}

    yield Toy
    MODELS._module_dict.pop('ToySourceForInputTests')


def toy(**options):
    return Teacher(SOURCE, 'random', taps=('seen',), **options)


@pytest.mark.parametrize(
    ('inputs', 'facts'),
    [
        (dict(ids_keep=torch.zeros(2, 1, dtype=torch.long)), ['ids_keep', 'boxes, prompt, seed']),
        (dict(promptt=torch.zeros(2, 1, 8, 12)), ['promptt', 'did you mean "prompt"']),
        (dict(boxes=[torch.zeros(1, 4)]), ['boxes', '(1, 4)', '(2, 3, 8, 12)', 'corners']),
        (dict(boxes=[torch.zeros(1, 4), torch.zeros(4)]), ['boxes', '(4,)']),
        (dict(boxes=[torch.zeros(1, 4), torch.zeros(1, 4, dtype=torch.long)]), ['int64', 'floating']),
        (dict(boxes=torch.zeros(2, 4)), ['boxes', '(2, 4)']),
        (dict(prompt=torch.zeros(2, 8, 12)), ['prompt', '(2, 8, 12)', '(B, 1, H, W)']),
        (dict(prompt=torch.zeros(2, 1, 8, 8)), ['prompt', '(2, 1, 8, 8)']),
        (dict(seed=torch.zeros(2, 3)), ['seed', 'float32', 'whole numbers']),
        (dict(seed=torch.zeros(1, 3, dtype=torch.long)), ['seed', '(1, 3)']),
        (dict(seed=7), ['seed', 'int']),
    ],
)
def test_a_wrong_input_is_one_clear_message(inputs, facts):
    with pytest.raises(UserError) as error:
        toy()(IMAGES, **inputs)
    assert all(fact in str(error.value) for fact in ['toy', *facts]), error.value


def test_inputs_reach_the_source_as_they_are():
    teacher = toy()
    prompt, seed = torch.rand(2, 1, 8, 12), torch.tensor([[1], [2]])
    teacher(IMAGES, prompt=prompt, seed=seed, boxes=None)
    seen = teacher.source.seen
    assert torch.equal(seen['prompt'], prompt) and torch.equal(seen['seed'], seed) and seen['boxes'] is None


def test_geometric_inputs_are_resized_with_the_image():
    teacher = toy(input_size=24)
    prompt = torch.zeros(2, 1, 8, 12)
    prompt[:, 0, 7, 0] = 5.0
    box = torch.tensor([[3.0, 2.0, 12.0, 8.0]])
    teacher(IMAGES, prompt=prompt, boxes=[box, box[:0]])
    seen = teacher.source.seen
    assert seen['images'].shape == (2, 3, 24, 24)
    assert seen['boxes'][0].tolist() == [[6.0, 6.0, 24.0, 24.0]] and seen['boxes'][1].shape == (0, 4)
    assert set(seen['prompt'].unique().tolist()) == {0.0, 5.0}  # nothing between known and unknown
    assert (seen['prompt'][:, 0, 21:, :2] == 5).all() and seen['prompt'].count_nonzero() == 2 * 3 * 2
    assert torch.equal(box, torch.tensor([[3.0, 2.0, 12.0, 8.0]]))


def test_answers_may_be_ragged():
    answer = toy()(IMAGES, boxes=[torch.ones(3, 4), torch.ones(1, 4, requires_grad=True)])['seen']
    assert isinstance(answer, Ragged) and answer.counts.tolist() == [3, 1]
    assert answer.values.dtype == torch.float32 and not answer.values.requires_grad


def test_constants_are_computed_once_and_again_after_a_move():
    teacher = toy()
    assert teacher.source.calls == 0  # the weights may still have to go to a GPU
    teacher(IMAGES), teacher(IMAGES)
    text = teacher.constants['text']
    assert teacher.source.calls == 1 and torch.equal(text, teacher.network.weight * 2)
    assert not text.requires_grad and teacher.source.seen['constants']['text'] is text
    teacher.apply_to_tensors(lambda tensor: tensor.double())
    assert teacher.constants['text'].dtype == torch.float64 and teacher.source.calls == 2
