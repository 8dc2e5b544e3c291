"""What engines share: the checks of records before they are stored, and the pauses of writers that lost a race."""
