"""Distances between the features of two sets of images: Fréchet distance, KID, CMMD."""
