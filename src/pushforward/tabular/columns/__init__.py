"""Kinds of columns: how entries become coordinates of a model, and back."""

from pushforward.tabular.columns.base import Coordinates, Kind
from pushforward.tabular.columns.column import Column, Name, Scalar
from pushforward.tabular.columns.infer import infer_kind, kind_from_json, parse_kind
from pushforward.tabular.columns.levels import Categorical, Constant, Ordered
from pushforward.tabular.columns.numeric import Angle, Bounded, Integer, Positive, Real

__all__ = [
    "Angle",
    "Bounded",
    "Categorical",
    "Column",
    "Constant",
    "Coordinates",
    "Integer",
    "Kind",
    "Name",
    "Ordered",
    "Positive",
    "Real",
    "Scalar",
    "infer_kind",
    "kind_from_json",
    "parse_kind",
]
