"""Real-time semantic segmentation that works in another domain than the labelled one."""
