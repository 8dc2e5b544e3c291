"""Places for objects that lie beside a store: a folder, or a bucket of a cloud. Bodies out of line and archives use them."""

from __future__ import annotations

from perdure.places.names import object_name
from perdure.places.opening import open_place
from perdure.places.place import Place

__all__ = ["Place", "object_name", "open_place"]
