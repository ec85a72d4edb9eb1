"""Training runs on disk, and what is measured of their models: cards, golden images, verification."""
