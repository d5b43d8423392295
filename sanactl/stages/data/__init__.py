"""Images with captions for training: a folder, a dataset, image records, the built-in world."""

from sanactl.stages.data.sources import (
    DatasetSource,
    RecordSource,
    ShapesSource,
    TrainingData,
    fit,
    open_training_data,
)

__all__ = ["DatasetSource", "RecordSource", "ShapesSource", "TrainingData", "fit", "open_training_data"]
