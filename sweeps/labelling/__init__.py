"""Choosing among a sweep's finalists by the labels of a few target images, which come over days: what `sweeps pick` does."""
