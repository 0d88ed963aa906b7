"""The registries of vfd: children (scope ``vfd``) of mmengine's roots, and the only place that creates registries.

Config types of vfd carry the scope: ``type='vfd.SSLDDistiller'``. The packages that register types are imported
at the first look-up, so importing this module stays cheap. Importing it also makes the OpenMMLab packages run on
the installed torch (:func:`vfd.compat.install`), whatever is imported first.
"""

from importlib import import_module
from typing import Any

from vfd import compat

compat.install()

from mmengine import registry as _root  # noqa: E402  (the repairs come first)

_LOCATIONS = [
    'vfd.backbones',
    'vfd.methods',
    'vfd.teachers',
    'vfd.datasets',
    'vfd.engine',
    'vfd.evaluation',
    'vfd.visualization',
]

# Types whose base class is of an OpenMMLab package: registry -> type -> package and module. They are imported when they
# are looked up, so that a config without them does not import the package.
ON_DEMAND: dict[str, dict[str, tuple[str, str]]] = {
    'model': {
        'ViTClassifier': ('mmpretrain', 'vfd.backbones.vit_classifier'),
        'SegmentationProbe': ('mmseg', 'vfd.evaluation.segmentation_probe'),
        'ClsDataPreprocessor': ('mmpretrain', 'vfd.datasets.preprocessors'),
        'SelfSupDataPreprocessor': ('mmpretrain', 'vfd.datasets.preprocessors'),
        'LinearSegHead': ('mmseg', 'vfd.evaluation.segmentation_probe'),
    },
    'dataset': {'COCOObjectDataset': ('mmseg', 'vfd.datasets.coco_object')},
}


class _Registry(_root.Registry):
    """mmengine's registry; a look-up imports only what it needs.

    The packages are imported only for a name that is not registered yet, so that an exported detector with
    ``vfd.backbones`` runs without teachers and methods; types of ``ON_DEMAND`` are imported by themselves.
    """

    def get(self, key: str) -> Any:
        """Return the class of a name, with or without scope; None where it is not registered.

        Raises:
            MissingPackageError: its OpenMMLab package is not installed.
        """
        if isinstance(key, str):
            name = key.removeprefix('vfd.')
            if name not in self._module_dict and name in ON_DEMAND.get(self.name, {}):
                package, module = ON_DEMAND[self.name][name]
                compat.require(package)
                import_module(module)
            if name in self._module_dict:
                return self._module_dict[name]
        return super().get(key)


def _child(parent: _root.Registry) -> _root.Registry:
    """Return the ``vfd`` child of one of mmengine's root registries."""
    return _Registry(parent.name, parent=parent, scope='vfd', locations=_LOCATIONS)


RUNNERS = _child(_root.RUNNERS)
LOOPS = _child(_root.LOOPS)
HOOKS = _child(_root.HOOKS)
MODELS = _child(_root.MODELS)
MODEL_WRAPPERS = _child(_root.MODEL_WRAPPERS)
DATASETS = _child(_root.DATASETS)
DATA_SAMPLERS = _child(_root.DATA_SAMPLERS)
TRANSFORMS = _child(_root.TRANSFORMS)
METRICS = _child(_root.METRICS)
EVALUATORS = _child(_root.EVALUATOR)
OPTIMIZERS = _child(_root.OPTIMIZERS)
OPTIM_WRAPPERS = _child(_root.OPTIM_WRAPPERS)
OPTIM_WRAPPER_CONSTRUCTORS = _child(_root.OPTIM_WRAPPER_CONSTRUCTORS)
PARAM_SCHEDULERS = _child(_root.PARAM_SCHEDULERS)
VISUALIZERS = _child(_root.VISUALIZERS)
VISBACKENDS = _child(_root.VISBACKENDS)
LOG_PROCESSORS = _child(_root.LOG_PROCESSORS)
FUNCTIONS = _child(_root.FUNCTIONS)
INFERENCERS = _child(_root.INFERENCERS)
TASK_UTILS = _child(_root.TASK_UTILS)
