"""GlomeruLearn: find the glomeruli of renal biopsy slides and grade them without labels.

One module per thing a nephropathologist or a microscopist would name, in the order the data flows. Nothing here
knows Snakemake: every step can be called from Python.
"""
