"""How requests travel between router and replicas: one connection for each pair of them, both ways.

The router listens, and says where to the replicas by Serve's handle; each connects, and from then
on takes requests and gives answers on its wire. Serve decides which replicas there are; this does
not.
"""
