"""Coverage-guided fuzzing of everything that reads bytes from outside: ``make fuzz``.

``targets``   what is called with any bytes, what it may do, and valid inputs to begin with
``child``     one target in a process of its own, with libFuzzer's arguments
``__main__``  all targets in turn, for some seconds each
"""
