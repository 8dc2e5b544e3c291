"""What engines share. An engine holds what that engine alone needs.

checks        finished records before they are stored; whether a session is one that a query asks for
pages         the versions and the bytes of one `read`; whether versions follow one another without a gap
pacing        the pauses of writers that lost a race
packing       the bytes of heads, idempotency keys and records, where they are the same on several engines
pieces        values that are too large for one row, item or entity
refusals      errors that every engine raises in the same words
store_header  the store's id and the version of its layout: read, made once, checked
"""
