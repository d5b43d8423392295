"""Training data: images with captions that `--data` names, as examples in an order, or as latents and embeddings."""

from sanactl.data.encoded import EncodedData
from sanactl.data.open import open_examples, open_training_data
from sanactl.data.settings import DataSettings
from sanactl.data.sources import ImageData, ShapesSource, TableSource, TrainingData, fit

__all__ = [
    "DataSettings",
    "EncodedData",
    "ImageData",
    "ShapesSource",
    "TableSource",
    "TrainingData",
    "fit",
    "open_examples",
    "open_training_data",
]
