"""Change under load: nothing that was not removed fails, and nothing is cut short."""
