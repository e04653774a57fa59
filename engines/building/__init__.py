"""From an ONNX file to an engine: the request, the builder in a process of its own, the plan with its sidecar."""
