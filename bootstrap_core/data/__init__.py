"""Datasets: MNIST and Fashion-MNIST, users' own images, and the sample that ships in the wheel."""
