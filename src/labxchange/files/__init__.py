"""The disk: reading folders, hashing, the quarantine that receives, verifying what is there, and secret files.

Everything here goes through folder descriptors without following links; foreign errors become ours at this edge.
"""
