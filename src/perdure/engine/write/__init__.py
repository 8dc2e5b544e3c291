"""Writing: an edit becomes a request, the request a record, the record a commit where the head allows it."""
