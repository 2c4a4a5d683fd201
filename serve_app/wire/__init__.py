"""The way of an answer from a replica to the router that asked: one connection per pair of them."""
