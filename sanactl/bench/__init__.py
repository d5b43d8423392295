"""Measurements of speed and memory: kernels, optimizers, sampling, training, surgery."""
