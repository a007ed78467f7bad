"""Tandem: the same image classifier in PyTorch and in Keras under one protocol."""

import warnings

__version__ = "0.2.0"

# By joblib at import if /dev/shm cannot be written, as in many containers. Nothing here uses joblib's processes.
warnings.filterwarnings("ignore", message=".*joblib will operate in serial mode", category=UserWarning)
# By MLflow at import, about its own types.
warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType", category=UserWarning)
