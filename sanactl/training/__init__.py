"""Training: conditions and gradients of a batch, the steps, saved states, a teacher, and the memory plan."""
