"""Export of a trained student: one file a target, each ends in a comparison with the live model.

A target is a module with ``TOLERANCE``, ``check(student)``, ``output(student)``, ``write(student, folder, images)``,
``annotate(artefact, text)``, ``reload(artefact, student)`` and ``snippet(artefact, student)``; see `Target`.
`vfd.apis.exporting` runs them.
"""

from vfd.export.certificate import ExportReport
from vfd.export.images import real_images
from vfd.export.parity import Parity, compare
from vfd.export.parts import PARTS, choose_part
from vfd.export.staging import staging_folder
from vfd.export.student import LoadedStudent, live_student
from vfd.export.target import TARGETS, Target, load_target

__all__ = [
    'PARTS',
    'TARGETS',
    'ExportReport',
    'LoadedStudent',
    'Parity',
    'Target',
    'choose_part',
    'compare',
    'live_student',
    'load_target',
    'real_images',
    'staging_folder',
]
