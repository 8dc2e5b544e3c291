"""Agent frameworks: for each, the classes that its users plug in.

Each module needs the framework's extra, for instance `pip install '.[langgraph]'` in a clone. Every class takes an open store,
`perdure.Store` or `perdure.sync.Store`; the framework's own asynchronous and blocking methods work with either, from any
thread and any event loop.
"""
