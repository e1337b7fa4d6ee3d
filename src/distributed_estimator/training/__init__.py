"""Training of quantum neural networks on a `DistributedEstimator`."""
