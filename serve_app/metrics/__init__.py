"""What the routers and the models' replicas count, and how Prometheus comes to see it."""
