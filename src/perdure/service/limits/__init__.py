"""How much a tenant may ask of a node: rates (`rates`), what is open at once (`tenants`), fair turns before the engine (`fair_queue`).

Limits are per tenant and per node: two nodes let twice as much through.
"""
