"""What a device can do; how code is compiled, linked and launched there."""
