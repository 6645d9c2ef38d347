"""What a flow is trained for: losses as modules, for `pushforward.train` or a loop of one's own."""

from pushforward.objectives.base import DensityObjective, Objective
from pushforward.objectives.flow_matching import FlowMatching
from pushforward.objectives.importance import AlphaDivergence, ForwardKL, ImportanceWeighted
from pushforward.objectives.log_variance import LogVariance
from pushforward.objectives.maximum_likelihood import MaximumLikelihood
from pushforward.objectives.reverse_kl import ReverseKL
from pushforward.objectives.tempering import geometric_tempering, linear_tempering

__all__ = [
    "AlphaDivergence",
    "DensityObjective",
    "FlowMatching",
    "ForwardKL",
    "ImportanceWeighted",
    "LogVariance",
    "MaximumLikelihood",
    "Objective",
    "ReverseKL",
    "geometric_tempering",
    "linear_tempering",
]
