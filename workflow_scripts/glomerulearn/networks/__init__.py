"""The networks: two segmenters and the autoencoder."""
