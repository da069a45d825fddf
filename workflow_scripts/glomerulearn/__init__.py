"""GlomeruLearn: find the glomeruli of renal biopsy slides and grade them without labels.

One module per thing a nephropathologist or a microscopist would name, in the order the data flows. Nothing here
knows Snakemake: every step can be called from Python.
"""

import os

# Read by PyTorch at its first tensor: large ones lie in large pages of memory, which the kernel hands out far faster.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
