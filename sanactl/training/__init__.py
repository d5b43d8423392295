"""Training: data, the batch on its way to the model, the steps, and what a stopped run leaves behind."""
