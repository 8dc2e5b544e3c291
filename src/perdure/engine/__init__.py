"""The use cases: a draft becomes a commit, a chain becomes a state. Everything that reads or writes a session passes here."""
