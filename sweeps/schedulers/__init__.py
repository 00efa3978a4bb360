"""Which trials stop early or go on as others: successive halving, median, population based training."""
