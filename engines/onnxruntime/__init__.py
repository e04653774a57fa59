"""ONNX files under ONNX Runtime."""
