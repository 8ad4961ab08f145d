"""Rewrites of the graph, a file each, and the table that orders them."""
