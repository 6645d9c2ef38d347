"""Self-contained HTML pages about a fit. Needs `pip install "pushforward[plot]"`."""

from pushforward.report.log_density import log_density_page
from pushforward.report.page import Page, Picture, Section, write_page
from pushforward.report.table import table_page

__all__ = ["Page", "Picture", "Section", "log_density_page", "table_page", "write_page"]
