"""Tables of numbers: read, check and write them."""

from pushforward.tabular.table import Table, TableError, check_columns, check_fittable, read_table, write_csv

__all__ = ["Table", "TableError", "check_columns", "check_fittable", "read_table", "write_csv"]
