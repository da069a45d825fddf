"""How the pixels of a slide file are reached: one module per kind of file, all with the same face.

A reader has
- `name`, `vendor`; `stated_mpp` (um per pixel at level 0, or None), `centre_nm` (where the image's centre lies from the
  slide's, in nm, or None), `notes` (what a reader of the quality table should know);
- `sizes`: (width, height) in px of every level, largest first; `shrinks`: the factors by which it reduces for little;
- `region(level, x, y, width, height, shrink=1)`: uint8 (height, width, 3) RGB in pixels of that level (divided by
  `shrink`); what lies outside the image or was never scanned has the background's colour. Raises DamagedRegion. Safe in
  threads;
- `close()`.
"""
