"""The graph: values, nodes and layers, their types, their text, and the twins that check them."""
