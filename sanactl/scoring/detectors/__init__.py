"""Detectors: what finds the objects in an image."""
