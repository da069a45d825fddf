"""The networks: segmenters, and those that learn from a cohort's crops."""
