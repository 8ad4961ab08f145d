"""Loop nests before any target: normal form, clamping, schedules."""
