"""Engines of TensorRT and TensorRT-RTX, run on the GPU."""
