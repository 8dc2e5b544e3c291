"""What the adapters share: how text that UTF-8 cannot say is stored, and how what is too large for one commit is cut."""
