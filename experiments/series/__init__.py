"""Multivariate time series: read, checked, and two that are real."""
