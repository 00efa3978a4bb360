"""The search for the best segmenter within a budget: what to vary, what ran, what came out, what to pick."""
