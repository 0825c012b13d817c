"""candist: candidate label sets from a large language model, distilled into a small student.

Importing this package loads neither torch, nor Great Expectations, nor Prefect, and does nothing else.
"""
