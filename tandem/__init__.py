"""Tandem: the same image classifier in PyTorch and in Keras under one protocol."""

__version__ = "0.2.0"
