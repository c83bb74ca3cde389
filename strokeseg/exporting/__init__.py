"""What leaves the house: ONNX, MONAI Bundle, model card, nnU-Net data set."""
