"""How Roundhouse behaves as models, load and routers grow, with echoes for models."""
