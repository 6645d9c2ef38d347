"""Self-contained HTML pages about a fit. Needs `pip install "pushforward[plot]"`."""

from pushforward.report.page import Page, Section, write_page

__all__ = ["Page", "Section", "write_page"]
