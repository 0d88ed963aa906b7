"""The distillation methods, one package each. Importing this package registers all of them."""

import importlib
import pkgutil

for _method in pkgutil.iter_modules(__path__):
    importlib.import_module(f'{__name__}.{_method.name}')
