"""Lifetimes to offsets: one arena for all activations, a solver, and its independent validator."""
