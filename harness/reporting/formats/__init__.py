"""One renderer per format of a report."""
