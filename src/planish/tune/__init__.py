"""The tuner: which tactics are legal, which are worth timing, which is fastest here."""
