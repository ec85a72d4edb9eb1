import torch

torch.set_num_threads(1)
"""Small tensors and busy machines: threads that wait for each other cost more than they give."""
