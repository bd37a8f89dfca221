"""A report on runs: what is measured of each, the pictures, and the page."""

from quickstudy.evaluation.reports.page import write_report
from quickstudy.evaluation.reports.subject import Subject, subjects

__all__ = ["Subject", "subjects", "write_report"]
