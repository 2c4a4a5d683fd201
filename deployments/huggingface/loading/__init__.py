"""From a checkpoint to a model that can serve, or to a sentence that says why there is none."""
