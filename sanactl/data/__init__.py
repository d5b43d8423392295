"""Images with captions for training: a folder, shards, a dataset, image records, the built-in world, latents."""

from sanactl.data.encoded import EncodedData
from sanactl.data.examples import open_examples
from sanactl.data.open import open_training_data
from sanactl.data.sources import (
    DatasetSource,
    ImageData,
    RecordSource,
    ShapesSource,
    TableSource,
    TrainingData,
    fit,
)

__all__ = [
    "DatasetSource",
    "EncodedData",
    "ImageData",
    "RecordSource",
    "ShapesSource",
    "TableSource",
    "TrainingData",
    "fit",
    "open_examples",
    "open_training_data",
]
