"""The command line: a face of the node. Commands parse, call one verb, and draw its value; they decide nothing."""
