"""PyTorch: networks, losses, data on the device, the training loop."""
