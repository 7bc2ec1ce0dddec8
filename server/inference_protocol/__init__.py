"""Open Inference Protocol v2: the REST protocol of KServe, Triton and MLServer, with its binary tensors."""
