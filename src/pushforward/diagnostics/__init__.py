"""Figures that tell how far to trust draws and weights, of a flow or of anything else."""

from pushforward.diagnostics.calibration import expected_coverage, sbc_ranks, uniformity
from pushforward.diagnostics.importance import effective_sample_size, khat_threshold, log_evidence, pareto_smooth
from pushforward.diagnostics.normality import LatentNormality, latent_normality
from pushforward.diagnostics.p_values import ks_p_value
from pushforward.diagnostics.samples import TwoSample, c2st, energy_distance, mmd, sliced_wasserstein

__all__ = [
    "LatentNormality",
    "TwoSample",
    "c2st",
    "effective_sample_size",
    "energy_distance",
    "expected_coverage",
    "khat_threshold",
    "ks_p_value",
    "latent_normality",
    "log_evidence",
    "mmd",
    "pareto_smooth",
    "sbc_ranks",
    "sliced_wasserstein",
    "uniformity",
]
