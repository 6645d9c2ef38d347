"""Self-contained HTML pages about a fit. Needs `pip install "pushforward[plot]"`."""

from pushforward.report.page import Page, Picture, Section, write_page
from pushforward.report.table import table_page

__all__ = ["Page", "Picture", "Section", "table_page", "write_page"]
