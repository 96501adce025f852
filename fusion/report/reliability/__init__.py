"""What ``tools/reliability.py`` injected and saw, as a page."""
