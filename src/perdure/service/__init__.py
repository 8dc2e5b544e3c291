"""`perdure serve`: a store over HTTP. See docs/serve.md.

`server` runs a node, `app` answers its requests by the routes of `table`, each with a `Call`.
"""
