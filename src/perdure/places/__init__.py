"""Places for objects that lie beside a store: a folder, or a bucket of a cloud. Bodies out of line and archives use them.

Import from the modules: `place` has `Place`, `names` has `object_name`, `opening` has `open_place`, which loads the buckets of the engines.
"""
