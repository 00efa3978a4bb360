"""Fewer and cheaper numbers in a network: weights that are zero, weights that share their values, and fewer channels.

| file | what it does |
| --- | --- |
| `weights.py` | which weights of a network may become zero |
| `magnitude.py` | which of them are the smallest: of all, or of each layer |
| `schedules.py` | how many at which step of a training |
| `pruning.py` | masks that last through a training |
| `curve.py`, `curve_pictures.py` | how good a trained network is with more and more zeros |
| `channels.py`, `slimming.py` | fewer channels: a smaller dense network, which is faster too |
| `codebooks.py`, `sharing.py`, `shared_file.py` | a few values per layer, and how many bytes that saves |

What zeros do not give: speed. Kernels for dense weights multiply by zero like by any other number; a fully-convolutional
discriminator with 85 % zeros takes 48.2 ms where the dense one takes 48.4. They make the file smaller once it is compressed.
"""
