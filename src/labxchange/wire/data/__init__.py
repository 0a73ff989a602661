"""The bulk plane: lanes, encrypted flows of datagrams that carry ranges of the line of a listing's bytes."""
