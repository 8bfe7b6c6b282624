"""Calibration: a short run on the hardware at hand, in a child process, that checks the predictions and is remembered.

Importing this package loads no torch, and neither does the parent that starts the child.
"""
