"""Annotation files of every program that pathologists outline glomeruli in: one module per format.

Each reader takes the parsed file and the slide's `Frame` and returns a list of `Feature`s; `reading.read_annotation` picks
the reader by what the file holds, maps class names to labels, and reports what was left out and why.
"""
