"""What is seen of a node: metrics (`metrics`, shown by `exposition`, or on a `port` of their own), a line in the log a request (`log`), and
one trace from client to engine (`tracing`). `observer` puts them together.
"""
