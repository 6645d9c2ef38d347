"""Figures that tell how far to trust draws and weights, of a flow or of anything else."""

from pushforward.diagnostics.importance import effective_sample_size, khat_threshold, log_evidence, pareto_smooth

__all__ = ["effective_sample_size", "khat_threshold", "log_evidence", "pareto_smooth"]
