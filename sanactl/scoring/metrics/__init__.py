"""Metrics: what `sanactl eval` can measure of images."""
