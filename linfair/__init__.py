"""linfair."""
