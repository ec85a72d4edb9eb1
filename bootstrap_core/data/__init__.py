"""Datasets: named ones such as MNIST and CIFAR-10, users' own images, and the sample that ships in the wheel."""
