"""What each operator means: types, shapes, and how it runs. A file a family."""
