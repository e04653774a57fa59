"""Serving: pictures over the wire, by Triton Inference Server."""
