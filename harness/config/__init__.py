"""The schema of a run: groups of settings, methods built from their yaml, composing, explaining what is
wrong.
"""
