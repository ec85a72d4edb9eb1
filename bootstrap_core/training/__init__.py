"""Training: the loop, its schedule, augmentation, averaged weights, several processes."""
