"""Training: the loop, its schedule, augmentation, averaged weights, and several processes."""
