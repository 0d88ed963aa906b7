"""MAE: masked autoencoders on your own images, alone and under a teacher that was pre-trained further."""

from vfd.methods.mae.answer_cache import TeacherCacheHook
from vfd.methods.mae.model import MAE
from vfd.methods.mae.self_distillation import SelfDistillMAE

__all__ = ['MAE', 'SelfDistillMAE', 'TeacherCacheHook']
