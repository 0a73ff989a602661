"""What is inside files: tables read, written, cut, fingerprinted and compared. Bytes in, values out.

It touches no disk path, network, store or node: whoever calls has the bytes and knows where they came from. pandas, pyarrow and
pyreadstat are imported inside functions, so that nothing of this costs a start.
"""
