"""Which precision the kernels of an engine really compute in."""
