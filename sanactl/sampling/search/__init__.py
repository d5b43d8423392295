"""Adaptive best-of-N: images are drawn in rounds, judged, and a prompt stops when more would not help (`scale`)."""
