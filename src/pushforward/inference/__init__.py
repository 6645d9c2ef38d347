"""Fit a flow to a log density: locate, start, transport, polish, certify, deliver."""

from pushforward.inference.fit import LogDensityFit, fit_to_log_density

__all__ = ["LogDensityFit", "fit_to_log_density"]
