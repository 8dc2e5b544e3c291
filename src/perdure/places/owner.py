"""A place belongs to one store, which an object in it names."""

from __future__ import annotations

from perdure.errors import Invalid
from perdure.places.place import Place


async def claim(place: Place, folder: str, contents: str, store_id: str, *, create: bool) -> None:
    """Make this folder of the place this store's, if it is nobody's. `contents` is what lies there, as a message calls it.

    Raises `Invalid` where it is another's, and as `Place`.
    """
    owner, mine = f"{folder}.store", store_id.encode()
    if create and await place.put(owner, mine):
        return
    found = await place.get(owner)
    if found not in (None, mine):
        raise Invalid(f"{place.shown} has the {contents} of another store: give each store a place of its own.")
