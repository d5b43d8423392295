"""What a machine makes of sanactl, measured part by part: kernels, optimizers, sampling, training."""
