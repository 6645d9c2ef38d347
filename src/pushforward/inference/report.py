"""The verdict on a fit, in words."""

from __future__ import annotations

import math
from typing import Literal

from pushforward.inference.certify import SIGNIFICANT, Certificate
from pushforward.inference.locate import Located

Verdict = Literal["good", "doubtful", "failed"]
GOOD_ESS, FAILED_ESS = 0.8, 0.01
GOOD_MISSED, FAILED_MISSED = 0.02, 0.2


def findings(certificate: Certificate, missed: float) -> list[tuple[Verdict, str]]:
    """Each check that is not passed: how bad, and what it means."""
    c = certificate
    found: list[tuple[Verdict, str]] = []
    if not c.proper:
        found.append(
            ("failed", "the density does not fall off far out: it has no finite integral; add a prior or a support")
        )
    if not math.isfinite(c.log_evidence) or not math.isfinite(c.elbo) or c.elbo < -1e9:
        found.append(("failed", "the flow draws where the density is zero; give the support"))
    if c.ess < GOOD_ESS:
        grade: Verdict = "failed" if c.ess < FAILED_ESS else "doubtful"
        found.append((grade, f"only {100 * c.ess:.2g} % of the draws count; give it more time or a larger flow"))
    if c.khat > c.khat_limit:
        grade = "failed" if c.khat > 1 and c.ess < GOOD_ESS else "doubtful"
        found.append((grade, f"k-hat {c.khat:.2f} is above {c.khat_limit:.2f}: some weights are far too large"))
    if c.drift_p < SIGNIFICANT:
        found.append(("doubtful", f"short chains drift away from the draws, by {c.drift:.1f} standard errors"))
    if missed > GOOD_MISSED:
        grade = "failed" if missed > FAILED_MISSED else "doubtful"
        found.append((grade, f"{100 * missed:.2g} % of the mass is where the flow gives less than a tenth of its due"))
    return found


def verdict(certificate: Certificate, missed: float) -> Verdict:
    """The worst of the findings; "good" if there are none."""
    grades = [grade for grade, _ in findings(certificate, missed)]
    return "failed" if "failed" in grades else "doubtful" if grades else "good"


def report(
    words: Verdict,
    certificate: Certificate,
    located: Located,
    missed: float,
    start: str,
    evaluations: int,
    seconds: float,
) -> str:
    """The verdict, why, the figures, and what no figure can tell."""
    c = certificate
    drift = "not measured" if math.isnan(c.drift) else f"{c.drift:.1f} standard errors (chance {c.drift_p:.2g})"
    lines = [f"verdict: {words}"]
    lines += [f"  {grade}: {text}" for grade, text in findings(certificate, missed)]
    k = len(located.means)
    lines += [
        f"log evidence  {c.log_evidence:.4f} +- {c.log_evidence_error:.4f} nats",
        f"ELBO          {c.elbo:.4f} +- {c.elbo_error:.4f} nats",
        f"ESS           {c.ess:.3f} of 1",
        f"k-hat         {c.khat:.2f} (at most {c.khat_limit:.2f})",
        f"drift         {drift}",
        f"located       {k} place{'s' if k > 1 else ''}, {'complete' if located.complete else 'more may exist'}; "
        f"missing mass {100 * missed:.2g} %",
        f"start         {start}",
        f"cost          {evaluations:,} evaluations, {seconds:.1f} s",
        "No figure can see a mode that was never visited.",
    ]
    return "\n".join(lines)
