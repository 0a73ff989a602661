"""A path to drive rate control over, on a virtual clock: a bottleneck, what loses packets, and the flows that share it.

``link`` has the clock and the bottleneck, ``loss`` the loss models, ``lane`` a lane of ours as a model that drives a controller,
``tcp`` flows that behave as cubic and BBR do.
"""
