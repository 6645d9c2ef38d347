"""The training loop."""

from pushforward.training.loop import TrainResult, train
from pushforward.training.schedules import Schedule, cosine, exponential

__all__ = ["Schedule", "TrainResult", "cosine", "exponential", "train"]
