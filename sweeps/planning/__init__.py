"""What a sweep will cost and did cost: canaries, estimates, efficiency of architectures, packing of GPUs."""
