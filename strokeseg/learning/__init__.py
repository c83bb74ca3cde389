"""Learning: what turns slices into a network, and networks into a mask.

It may use torch and segmentation-models-pytorch; it knows nothing of a search.
"""
