"""Following commits: one reader and one encoded frame per commit serve all who follow the same.

entries    a commit, encoded once for all
channel    one reader, and the queues of those who listen
hub        the channels of a node
following  one client: it catches up by itself, then listens; after what it missed it catches up again
"""
