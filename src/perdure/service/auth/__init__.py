"""Who asks: tokens of this store (`tokens`, kept by `records`), and JSON Web Tokens of an identity provider (`jwt`, its keys in `jwks`).

`bearer` reads a credential from a request's head, `credentials` asks the one that it belongs to. A credential is never in a URL, a log,
a span or a problem.
"""
