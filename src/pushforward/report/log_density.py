"""The page about a fit to a log density."""

from __future__ import annotations

import torch

from pushforward.inference.fit import LogDensityFit
from pushforward.inference.plot import names
from pushforward.inference.report import findings
from pushforward.report.page import Page, Picture, Section
from pushforward.report.steps import steps_section
from pushforward.tabular.architecture import steps_of

STEP_DRAWS = 1500


def log_density_page(fit: LogDensityFit, *, title: str = "A fit to a log density") -> Page:
    """The page about a fit to a log density: verdict, figures, draws, the layers.

    Args:
        fit: made by `fit_to_log_density`.
        title: of the page.

    Example:
        >>> fit = pf.fit_to_log_density(lambda x: -0.5 * x.square().sum(-1), features=2, max_steps=50)
        >>> [section.title for section in log_density_page(fit).sections]
        ['Behind the verdict', 'Draws', 'Step by step']
    """
    sections = [Section("Behind the verdict", listing=fit.report)]
    coordinates = names(fit)
    if len(coordinates) > 1:
        sections.append(Section("Draws", pictures=[Picture(fit.plot(), "Draws of the flow.")]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        titles, points = steps_of(fit.flow, STEP_DRAWS)
    if all(p.shape == points[-1].shape for p in points):  # not onto a surface
        sections.append(steps_section(titles, points, coordinates, "Coordinates"))
    found = [f"{text} ({grade})" for grade, text in findings(fit.certificate, fit.missed)]
    return Page(title, fit.verdict, found, sections=sections)
