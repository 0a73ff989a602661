"""The face in a Python kernel: blocking functions over the node's client, and what they return."""
