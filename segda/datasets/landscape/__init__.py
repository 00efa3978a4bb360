"""Procedural landscapes: what lies where (`layout`) and how it looks (`rendering`); `segda.datasets.scenes` uses them."""
