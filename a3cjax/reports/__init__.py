"""Reports on run folders: one HTML file, and the same as Markdown, PNG and CSV."""

from a3cjax.reports.runs import RunFolderError
from a3cjax.reports.writing import write_report

__all__ = ["RunFolderError", "write_report"]
