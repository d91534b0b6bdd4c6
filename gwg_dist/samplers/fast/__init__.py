"""Faster ways to run the very same Markov kernels."""
