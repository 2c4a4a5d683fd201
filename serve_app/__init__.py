"""HTTP in, exchanges out. The only place that knows Ray Serve and Starlette."""
