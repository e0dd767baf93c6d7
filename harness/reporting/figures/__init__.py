"""The pictures of a report, one module for each kind; `harness.reporting.figures.pictures` puts them
together.
"""
