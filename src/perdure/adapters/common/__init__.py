"""What the adapters share: session ids, text that UTF-8 cannot say, JSON differences, retried changes, imports."""
