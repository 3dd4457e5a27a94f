"""The decisions of the kill switch: pure functions and objects, without I/O and without a clock.

The same code runs in production and in simulation; time and messages are arguments.
"""
