"""The training loop."""

from pushforward.training.distributed import is_writer
from pushforward.training.files import FileRows
from pushforward.training.flat import FlatParameters
from pushforward.training.gradient import gradient_function
from pushforward.training.loop import TrainResult, train
from pushforward.training.schedules import Schedule, cosine, exponential
from pushforward.training.statistics import ColumnStatistics

__all__ = [
    "ColumnStatistics",
    "FileRows",
    "FlatParameters",
    "Schedule",
    "TrainResult",
    "cosine",
    "exponential",
    "gradient_function",
    "is_writer",
    "train",
]
