"""Reports as one HTML file each that opens from the disk, without a network."""

from .render import check_page, require_jinja
from .run import write_run_report
from .study import study_page

__all__ = ["check_page", "require_jinja", "study_page", "write_run_report"]
