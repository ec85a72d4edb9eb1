"""Training runs on disk, and the cards, golden images and checks of the models that they make."""
