"""PH-Reg: register tokens for a trained vision transformer, by self-distillation from denoised features."""

from vfd.methods.ph_reg.denoise import DenoisedTeacher, DenseSource
from vfd.methods.ph_reg.model import PHReg
from vfd.methods.ph_reg.target_cache import DenoisedCacheHook

__all__ = ['DenoisedCacheHook', 'DenoisedTeacher', 'DenseSource', 'PHReg']
