"""Quantization mathematics: solvers, transforms and the algebra they share. Imports torch and the standard
library.
"""
