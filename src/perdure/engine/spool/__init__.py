"""The spool: writes that are acknowledged from a file on the local disk, and shipped to the store afterwards."""
