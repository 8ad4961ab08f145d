"""Layers → steps → plan: where values lie, what each layer runs, when, and on which memory."""
