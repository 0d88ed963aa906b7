"""FerKD: region labels that a teacher gave once, stored, calibrated, and mixed within an image."""

from vfd.methods.ferkd.batch_records import batches_to_store, store_to_batches
from vfd.methods.ferkd.calibration import LiveCalibration, build_calibration, calibrate_store
from vfd.methods.ferkd.core import RegionCalibration
from vfd.methods.ferkd.gallery import calibration_histogram, calibration_sheet, regions_picture
from vfd.methods.ferkd.labeller import RegionLabeller
from vfd.methods.ferkd.mixing import Mix, MixupCutmix, SelfMix
from vfd.methods.ferkd.model import FerKD
from vfd.methods.ferkd.official import official_to_store, store_to_official
from vfd.methods.ferkd.stored_crops import StoredCropDataset, crop_major_collate

__all__ = [
    'FerKD',
    'LiveCalibration',
    'Mix',
    'MixupCutmix',
    'RegionCalibration',
    'RegionLabeller',
    'SelfMix',
    'StoredCropDataset',
    'batches_to_store',
    'build_calibration',
    'calibrate_store',
    'calibration_histogram',
    'calibration_sheet',
    'crop_major_collate',
    'official_to_store',
    'regions_picture',
    'store_to_batches',
    'store_to_official',
]
