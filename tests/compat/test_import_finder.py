"""The import of vfd, and who answers for ``mmcv._ext``."""

import sys

import mmcv._ext
import pytest

import vfd
from vfd import compat
from vfd.compat import finder, mmcv_ops


def test_import_is_light(run_python):
    script = """
import sys, time
start = time.perf_counter()
import vfd
seconds = time.perf_counter() - start
heavy = {'torch', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'timm'} & set(sys.modules)
assert not heavy, heavy
print(vfd.__version__)
"""
    assert run_python(script).strip() == vfd.__version__


def test_mmpretrain_may_be_imported_first(run_python):
    # mmpretrain itself does not start beside transformers 5, see vfd.compat.transformers5.
    script = """
from vfd.compat import transformers5
transformers5.repair()
import mmpretrain.models, vfd.registry, mmseg.models
"""
    run_python(script)


def test_the_finder_is_last_and_alone():
    finder.announce()
    ours = [f for f in sys.meta_path if isinstance(f, finder.StandInFinder)]
    assert len(ours) == 1
    assert ours[0].find_spec('mmcv', None) is None
    assert ours[0].find_spec('mmcv._extra', None) is None


@pytest.mark.skipif(compat.compiled_available(), reason='a compiled mmcv is installed')
def test_stand_in_serves_the_extension():
    assert mmcv._ext.nms is mmcv_ops.nms
    assert sorted(o.__name__ for o in mmcv_ops.OPERATORS) == sorted(
        name for name in vars(mmcv._ext) if not name.startswith('__')
    )
    assert not hasattr(mmcv._ext, '__path__')


@pytest.mark.parametrize('operator', ['carafe_forward', 'ball_query_forward', 'nms_rotated'])
def test_operator_without_stand_in(operator):
    with pytest.raises(NotImplementedError, match=f'"{operator}".*compiled operators') as error:
        getattr(mmcv._ext, operator)(1, key=2)
    assert 'gpu-and-compiled-mmcv.md' in str(error.value)


def test_operator_without_stand_in_through_mmcv():
    import torch
    from mmcv.ops import RoIPool

    with pytest.raises(NotImplementedError, match='roi_pool_forward'):
        RoIPool(2)(torch.zeros(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 3, 3]]))


def test_environment_report_of_mmcv():
    from mmcv.utils import collect_env

    assert 'stand-in' in collect_env()['MMCV Compiler']


def test_compiled_extension_wins(run_python, tmp_path):
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').write_text('')
    (package / '_ext.py').write_text('compiled = True')
    script = """
import sys
import vfd.compat
assert vfd.compat.compiled_available()
import mmcv._ext
assert mmcv._ext.compiled and not hasattr(mmcv._ext, 'nms')
assert 'vfd.compat.mmcv_ops' not in sys.modules
print('compiled')
"""
    assert run_python(script).strip() == 'compiled'


def test_loader_workers_started_by_spawn(run_python):
    # The worker imports the main script again, and vfd with it, before it unpickles the data set.
    script = """
import vfd
import torch.utils.data


class Suppressed(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        import mmcv._ext

        boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [9, 9, 12, 12]])
        kept = mmcv._ext.nms(boxes, torch.tensor([0.5, 0.6, 0.7]), iou_threshold=0.5, offset=0)
        return kept + index


if __name__ == '__main__':
    loader = torch.utils.data.DataLoader(Suppressed(), num_workers=1, multiprocessing_context='spawn')
    print([batch.tolist() for batch in loader])
"""
    assert run_python(script).strip() == '[[[2, 1]], [[3, 2]]]'
