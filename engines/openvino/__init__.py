"""ONNX files under OpenVINO."""
