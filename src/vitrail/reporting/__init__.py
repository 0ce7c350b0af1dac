"""Reporting: what a run gives its readers, composed of figures and text."""
