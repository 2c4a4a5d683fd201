"""Where a model's weights go: GPU, RAM or disk. Decided before loading, from headers and config."""
